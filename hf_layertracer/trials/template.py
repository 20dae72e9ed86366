"""A config to start from."""

from __future__ import annotations


_TEMPLATE = """\
# Which layers shall train? Every arm trains the same model on the same data with the same budget, once with each seed.
# layertracer trials run THIS_FILE --out trials-out
model: {model}

train:
  files: [new.txt] # the domain to learn: UTF-8 text, or .jsonl with a document a line
  tokens: 2_000_000 # budget of one run
  sequence_length: 512
  batch_size: 8
  learning_rate: 1e-4 # an arm may have its own: find it on one seed first

evaluate:
  new: [new_held_out.txt] # text of the domain that is not trained on: what was learned
  old: [old.txt] # text of what the model knows already: what was forgotten
  probes: builtin
  tasks: [] # lm-evaluation-harness, such as ceval-valid; pip install "hf_layertracer[eval]"
  limit: 200 # blocks of each text, questions of each task (of each subject, in a group)

arms:
  - name: full
    strategy: full
  - name: freeze-deep
    strategy: freeze-deep
    freeze_ratio: 0.5
  - name: freeze-shallow
    strategy: freeze-shallow
  - name: sensitivity
    strategy: sensitivity
  - name: random
    strategy: random
  - name: lora
    strategy: lora
    learning_rate: 5e-4
  # The same on text that was selected: layertracer data select new.txt --model ... --out selected
  # - name: full-on-selected
  #   strategy: full
  #   files: [selected/selected.jsonl]

match: trainable_parameters # ratios and LoRA's rank are chosen so that as many parameters train as in freeze-deep
seeds: [0, 1, 2]

objective: # w_learn * learned - w_forget * forgotten, by which arms are ranked
  w_learn: 1.0
  w_forget: 1.0
"""


def config_template(model: str = "HuggingFaceTB/SmolLM2-135M") -> str:
    """A commented config, as YAML.

    Args:
        model (`str`, *optional*): Hub id or folder of the model.

    Returns:
        `str`: The text.
    """
    return _TEMPLATE.format(model=model)
