"""Options of commands, made from the settings that they fill: name, type, default and help are written once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from dataclasses import Field, fields
from inspect import Parameter
from typing import Annotated, Any, get_type_hints

import typer


Model = Annotated[str, typer.Argument(metavar="MODEL", help="Hub id or local folder of a causal language model.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")]
TrustRemoteCode = Annotated[bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")]
AllowPickle = Annotated[
    bool, typer.Option("--allow-pickle", help="Load weights that are not safetensors; such files can run code.")
]
Token = Annotated[str | None, typer.Option(help="By default HF_TOKEN, or the one that `hf auth login` stored.")]
RepoType = Annotated[str, typer.Option(metavar="[model|dataset]", help="A model, or a dataset that collects reports.")]


def with_options(
    settings: type, *, argument: str = "config", only: Collection[str] | None = None, panel: str | None = None
) -> Callable[[Callable], Callable]:
    """Gives a command an option for each field of a settings dataclass.

    The command's own function takes the finished settings as one argument, `config` by default. Help and choices come
    from the fields' metadata; what the settings refuse is refused by them, in their words.

    Args:
        settings (`type`): The dataclass.
        argument (`str`, *optional*, defaults to `"config"`): What the command calls them.
        only (`Collection[str]`, *optional*): The fields that become options; the others keep their defaults.
        panel (`str`, *optional*): Heading under which help shows these options.

    Returns:
        `Callable`: A decorator.

    Example:

    ```python
    from hf_layertracer.cli.options import Model, with_options
    from hf_layertracer.config import DiagnosisConfig


    @with_options(DiagnosisConfig, only=["perturbation", "repeats"])
    def command(model: Model, config: DiagnosisConfig) -> None: ...
    ```
    """

    def decorate(function: Callable) -> Callable:
        own = inspect.signature(function, eval_str=True)
        hints = get_type_hints(settings)
        made = [
            _parameter(field, hints[field.name], panel)
            for field in fields(settings)
            if only is None or field.name in only
        ]

        @functools.wraps(function)
        def command(**values: Any) -> Any:
            config = settings(**{parameter.name: values.pop(parameter.name) for parameter in made})
            return function(**{argument: config}, **values)

        parameters: list[Parameter] = []
        for parameter in own.parameters.values():
            # Where a command names its settings, there their options stand in its help.
            parameters += made if parameter.name == argument else [parameter.replace(kind=Parameter.KEYWORD_ONLY)]
        command.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        del command.__wrapped__  # its annotations are not those of the command
        return command

    return decorate


def one_of(choices: Collection[str]) -> str:
    """How help shows that an option takes one of a few values. Which of them is right, the library decides."""
    return f"[{'|'.join(choices)}]"


def _parameter(field: Field, kind: Any, panel: str | None) -> Parameter:
    choices = field.metadata.get("choices")
    option = typer.Option(
        help=field.metadata["help"], metavar=one_of(choices) if choices else None, rich_help_panel=panel
    )
    return Parameter(field.name, Parameter.KEYWORD_ONLY, default=field.default, annotation=Annotated[kind, option])
