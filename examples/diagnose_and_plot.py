# %% [markdown]
# # Diagnose a model and look at its layers
# Each `# %%` is a cell for Jupyter, VS Code or Spyder; as a script: `python diagnose_and_plot.py MODEL OUTPUT_FOLDER`.

# %%
import sys

from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_layertracer import DiagnosisConfig, diagnose, load_probes, make_plan
from hf_layertracer.report.figure import draw_report


name, folder = sys.argv[1:3] if len(sys.argv) == 3 else ("HuggingFaceTB/SmolLM2-135M", "layertracer-report")
model = AutoModelForCausalLM.from_pretrained(name)
tokenizer = AutoTokenizer.from_pretrained(name)

# %% [markdown]
# ## Measure
# Sixteen probes of the package, one random mask each, are enough for a first look; leave both out for a measurement.

# %%
probes = load_probes(max_probes=16)
report = diagnose(model, probes, tokenizer=tokenizer, config=DiagnosisConfig(repeats=1))
print("Task Particle:", report.task_particle.layer, "95 % interval", report.task_particle.interval)
print("Vulnerable layer:", report.sensitivity.vulnerable_layer, "of", report.num_layers)
for note in report.notes:
    print("Note:", note)

# %% [markdown]
# ## Look

# %%
figure = draw_report(report)  # the last line of a cell shows it
report.save(folder)

# %% [markdown]
# ## Decide
# What each strategy would train, and what it would cost.

# %%
for strategy in ("freeze-deep", "freeze-shallow", "sensitivity", "full"):
    plan = make_plan(report, strategy)
    share = plan.savings.trainable_parameters / plan.savings.total_parameters
    print(f"{strategy:>15}: trains {plan.trained_layers}, {share:.0%} of the parameters")
