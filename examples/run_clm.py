"""Continues the pre-training of a causal language model on text files, with the plain Trainer.

python run_clm.py --model_name_or_path HuggingFaceTB/SmolLM2-135M --train_file corpus.txt --output_dir out
"""

from __future__ import annotations

from dataclasses import dataclass, field

from datasets import load_dataset
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
)


@dataclass
class ScriptArguments:
    """What to train, on what.

    Args:
        model_name_or_path (`str`): Hub id or local folder of the model.
        train_file (`str`): Text file; documents are separated by empty lines.
        validation_file (`str`, *optional*): Likewise, for evaluation.
        block_size (`int`, *optional*, defaults to `512`): Tokens a training example.
    """

    model_name_or_path: str = field(metadata={"help": "Hub id or local folder of the model."})
    train_file: str = field(metadata={"help": "Text file with one document a paragraph."})
    validation_file: str | None = field(default=None, metadata={"help": "Text file to evaluate on."})
    block_size: int = field(default=512, metadata={"help": "Tokens a training example."})


def main() -> None:
    """Parses the arguments, prepares the data and trains."""
    script, args = HfArgumentParser((ScriptArguments, TrainingArguments)).parse_args_into_dataclasses()
    tokenizer = AutoTokenizer.from_pretrained(script.model_name_or_path)
    model = AutoModelForCausalLM.from_pretrained(script.model_name_or_path)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token

    files = {"train": script.train_file}
    if script.validation_file is not None:
        files["validation"] = script.validation_file
    texts = load_dataset("text", data_files=files, sample_by="paragraph")
    tokenized = texts.map(
        lambda rows: {"input_ids": tokenizer(rows["text"])["input_ids"]}, batched=True
    ).select_columns(["input_ids"])

    def in_blocks(rows: dict[str, list]) -> dict[str, list]:
        ids = [token for row in rows["input_ids"] for token in [*row, tokenizer.eos_token_id]]
        starts = range(0, len(ids) - script.block_size + 1, script.block_size)
        return {"input_ids": [ids[start : start + script.block_size] for start in starts]}

    blocks = tokenized.map(in_blocks, batched=True)
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=blocks["train"],
        eval_dataset=blocks.get("validation"),
        processing_class=tokenizer,
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
    )
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    trainer.save_model()
    if blocks.get("validation") is not None:
        print(trainer.evaluate())


if __name__ == "__main__":
    main()
