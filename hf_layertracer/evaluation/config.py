"""What to evaluate a model on."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class EvaluationConfig(BaseModel):
    """What to evaluate a model on.

    Args:
        new (`list[str]`, *optional*):
            Held-out text files of the domain that is learned: plain UTF-8 text, or `.jsonl` with a document a line.
        old (`list[str]`, *optional*): Text files of what the model knew before, to see what it forgets.
        probes (`str`, *optional*, defaults to `"builtin"`):
            `"builtin"`, `"builtin:structured"`, a file or folder that [`load_probes`] reads, or `None` for no probes.
        tasks (`list[str]`, *optional*):
            Names of lm-evaluation-harness tasks and groups, and local files or folders in the layouts of C-Eval, CMMLU
            or JSONL multiple choice. Need `pip install "hf_layertracer[eval]"`.
        limit (`int`, *optional*):
            Most blocks of text of each of `new` and `old`, spread evenly over their files, and most questions of each
            task (of each subject, in a group). All of them by default.
        num_fewshot (`int`, *optional*, defaults to `0`): Solved examples before each question of a task.
        sequence_length (`int`, *optional*, defaults to `512`):
            Tokens that are predicted in one block of text, each from those before it in its block.
        batch_size (`int`, *optional*, defaults to `8`): Requests of a task that run together.
        seed (`int`, *optional*, defaults to `0`): Seed of what lm-evaluation-harness draws (few-shot examples).
    """

    model_config = ConfigDict(extra="forbid")

    new: list[str] = []
    old: list[str] = []
    probes: str | None = "builtin"
    tasks: list[str] = []
    limit: int | None = Field(default=None, ge=1)
    num_fewshot: int = Field(default=0, ge=0)
    sequence_length: int = Field(default=512, ge=1)
    batch_size: int = Field(default=8, ge=1)
    seed: int = 0
