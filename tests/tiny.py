"""A local LLaDA folder for tests: the golden weights with a tokenizer of single characters."""

import json
import shutil
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

GOLDEN = Path(__file__).parent / "golden"
EOS, EOT, MASK = 240, 241, 250
TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def tokenizer(template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    """Every printable ASCII character and the newline is a token; the rest of 256 ids are not."""
    special = {EOS: "<|endoftext|>", EOT: "<|eot_id|>", MASK: "<|mdm_mask|>"}
    letters = ["\n", *map(chr, range(32, 127))]
    vocab = {c: i for i, c in enumerate(letters)}
    vocab |= {f"<{i}>": i for i in range(len(letters), 256) if i not in special}
    vocab |= {name: i for i, name in special.items()}
    made = Tokenizer(models.WordLevel(vocab, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    made.decoder = decoders.Fuse()
    made.add_special_tokens(list(special.values()))
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        chat_template=template,
    )


def llada(folder: Path, template: str | None = TEMPLATE, max_length: int = 256) -> Path:
    """Writes the model and its tokenizer to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(GOLDEN / "llada" / "model.safetensors", folder)
    config = json.loads((GOLDEN / "llada" / "config.json").read_text())
    config["max_sequence_length"] = max_length
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer(template).save_pretrained(folder)
    return folder
