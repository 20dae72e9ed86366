"""The HTML on a page. Every value passes the filter `text`; autoescape covers what does not."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ..records import ReportData, Savings
from ..text import compact_ranges
from .escaping import for_html
from .glossary import GLOSSARY
from .tables import particle_sentence
from .units import amount, number, size


_CELL_LIMIT, _NOTES_SHOWN = 120, 12

_TEMPLATES = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
_TEMPLATES.filters["text"] = lambda value, limit=80: Markup(for_html(value, limit))

_TABLE = _TEMPLATES.from_string(
    """{% macro look(column, grey) %}{% if column in grey %} class="lt-grey"{% endif %}{% endmacro -%}
<div class="lt-scroll" tabindex="0" role="region" aria-label="{{ caption | text(200) }}"><table class="lt-table">
<caption>{{ caption | text(200) }}</caption>
<thead><tr>{% for name in header %}
<th scope="col"{{ look(loop.index0, grey) }}>{{ term(name) }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in rows %}<tr>
{% for cell in row %}{% if loop.first %}<th scope="row">{% else %}<td{{ look(loop.index0, grey) }}>{% endif %}
{%- if loop.first and pick -%}
<button type="button" class="lt-pick" data-pick="{{ cell | text }}" aria-label="{{ pick }} {{ cell | text }}">
{{- cell | text(limit) }}</button>{% else %}{{ cell | text(limit) }}{% endif %}
{%- if loop.first %}</th>{% else %}</td>{% endif %}{% endfor %}
</tr>{% endfor %}</tbody></table></div>{% if reading %}<p class="lt-reading">{{ reading | text(1200) }}</p>{% endif %}"""
)
_HEADER = _TEMPLATES.from_string(
    """<div class="lt-head">{% if title %}<h2>{{ title | text(100) }}</h2>{% endif %}
<dl class="lt-facts">{% for name, value in facts.items() %}
<div><dt>{{ term(name) }}</dt><dd>{{ value | text(200) }}</dd></div>
{% endfor %}</dl>
{% if reason %}<p class="lt-reason">{{ reason | text(600) }}</p>{% endif %}
{% if notes %}<details><summary>{{ summary | text }}</summary>
<ul class="lt-notes">{% for note in notes %}<li>{{ note | text(600) }}</li>{% endfor %}</ul></details>{% endif %}
</div>"""
)
_TITLE = _TEMPLATES.from_string(
    """<div class="lt-head lt-title"><h2>{{ title | text(100) }}</h2> <p>{{ subtitle | text(300) }}</p></div>"""
)
_MESSAGE = _TEMPLATES.from_string("""<p class="lt-{{ kind }}" role="{{ role }}">{{ message | text(400) }}</p>""")
_DESCRIPTION = _TEMPLATES.from_string("""<p class="lt-unseen">{{ text_ | text(2000) }}</p>""")
_PROGRESS = _TEMPLATES.from_string(
    """<p class="lt-note" role="status">{{ message | text }} <progress value="{{ done }}" max="1"></progress></p>"""
)


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[object]],
    caption: str,
    limit: int = _CELL_LIMIT,
    pick: str = "",
    reading: str = "",
    grey: Collection[int] = (),
) -> str:
    """A table that scrolls sideways where the screen is narrow.

    Args:
        header (`Sequence[str]`): Names of the columns; known terms explain themselves.
        rows (`Sequence[Sequence[object]]`): The cells, the first of each row being its name.
        caption (`str`): What the table shows.
        limit (`int`, *optional*): Most characters of a cell.
        pick (`str`, *optional*): What a click on a row does; the rows' names become buttons.
        reading (`str`, *optional*): How to read it, below the table.
        grey (`Collection[int]`, *optional*): Columns that say nothing, and are shown so.

    Returns:
        `str`: HTML.
    """
    return _TABLE.render(
        header=header, rows=rows, caption=caption, limit=limit, pick=pick, reading=reading, grey=grey, term=term
    )


def error(message: object) -> str:
    """A message of what went wrong, read out at once by a screen reader."""
    return _MESSAGE.render(message=str(message), kind="error", role="alert")


def note(message: object) -> str:
    """A message of how things stand."""
    return _MESSAGE.render(message=str(message), kind="note", role="status")


def description(text: str) -> str:
    """What a picture shows, for those who do not see it."""
    return _DESCRIPTION.render(text_=text)


def progress(message: str, done: float) -> str:
    """A message with a bar.

    Args:
        message (`str`): What is being done.
        done (`float`): The fraction done.

    Returns:
        `str`: HTML.
    """
    return _PROGRESS.render(message=message, done=f"{done:.2f}")


def report_title(report: ReportData) -> str:
    """What a report is of, in one line above the charts.

    Args:
        report ([`ReportData`]): The report.

    Returns:
        `str`: HTML.
    """
    model = report.model
    subtitle = f"{model.architecture}, {report.num_layers} layers, {amount(model.size)} parameters, {model.dtype}"
    subtitle += f", revision {model.revision[:12]}" if model.revision else ""
    return _TITLE.render(title=model.name, subtitle=f"{subtitle}; measured {report.created[:10]}")


def report_facts(report: ReportData) -> str:
    """What a report says in numbers and words, below its charts.

    Args:
        report ([`ReportData`]): The report.

    Returns:
        `str`: HTML.
    """
    scores, plan = report.first.sensitivity, report.plan
    worst = scores.vulnerable_layer
    error = _error(scores.stderr[worst], scores.stderr_known)
    slope_error = _error(scores.shallow_minus_deep_stderr, scores.stderr_known)
    facts = {
        "Task Particle": particle_sentence(report),
        "vulnerable layer": f"{worst}, with {number(scores.mean[worst])}{error} bits",
        "shallow minus deep": f"{scores.shallow_minus_deep:+.3f}{slope_error} bits",
        "accuracy": f"{report.first.scores.accuracy:.0%} of {report.probes.count} probes",
    }
    rule, context = report.first.task_particle.max_ratio, report.first.context
    if rule is not None and rule.layer is not None:
        facts["Task Particle, max-ratio rule"] = f"layer {rule.layer:g}"
    if context is not None:
        most = context.delta.index(max(context.delta))
        error = _error(context.delta_stderr[most], context.stderr_known)
        facts["context sensitivity"] = f"largest at layer {most}, with {number(context.delta[most])}{error} bits"
    if plan is not None:
        facts["plan"] = f"{plan.strategy}: trains layers {compact_ranges(plan.trained_layers)}"
        facts |= savings_facts(plan.savings)
    training = report.training
    if training is not None:
        before, after = training.eval_loss_before, training.eval_loss_after
        facts["held-out loss"] = f"{number(before)} before, {number(after)} after {training.steps} steps"
    return _HEADER.render(
        title="",
        facts=facts,
        reason="",
        summary="Why this plan, and how to read the values" if plan else "How to read the values",
        notes=[*([plan.reason] if plan else []), *report.notes[:_NOTES_SHOWN]],
        term=term,
    )


def savings_facts(savings: Savings) -> dict[str, str]:
    """What a plan costs, against full training, by term."""
    pairs = {
        "trainable parameters": (savings.trainable_parameters, savings.trainable_parameters_full, amount, ""),
        "optimizer memory": (savings.optimizer_bytes, savings.optimizer_bytes_full, size, ""),
        "gradients": (savings.gradient_bytes, savings.gradient_bytes_full, size, ""),
        "FLOPs per token": (savings.flops_per_token, savings.flops_per_token_full, amount, " FLOPs"),
    }
    return {
        name: f"{write(ours)} of {write(full)}{unit}{f' ({ours / full:.0%})' if full else ''}"
        for name, (ours, full, write, unit) in pairs.items()
    }


def facts_list(title: str, facts: Mapping[str, str], reason: str = "") -> str:
    """A heading with values by term.

    Args:
        title (`str`): The heading.
        facts (`Mapping[str, str]`): The values.
        reason (`str`, *optional*): A sentence below them.

    Returns:
        `str`: HTML.
    """
    return _HEADER.render(title=title, facts=facts, reason=reason, notes=[], summary="", term=term)


def term(name: str) -> Markup:
    """A name that, where it is a known term, explains itself to pointer, finger and keyboard."""
    sentence = GLOSSARY.get(name)
    if sentence is None:
        return Markup(for_html(name))
    tip, shown = for_html(sentence, 400), for_html(name)
    return Markup(f'<span class="lt-term" tabindex="0" data-tip="{tip}" aria-label="{shown}: {tip}">{shown}</span>')


def _error(stderr: float | None, known: bool) -> str:
    """A standard error behind its value, where it is known."""
    return f" ± {number(stderr)}" if known and stderr is not None else ""
