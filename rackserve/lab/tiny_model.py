"""Write a small GGUF model with random weights, so that a lab can serve one without a model hub.

A throwaway host often sits on a network that reaches no model hub. What rackserve does to such a
host is still the real thing: it fetches a file, checks its sum, and starts a real llama-server that
loads it. All that needs is a file that really is a quantized GGUF, and this module writes one.

The model is honest about itself: its weights are noise, it has learned nothing, and its answers are
random English words. Only the shape of an answer (valid UTF-8, as many tokens as were asked for,
never an end of its own accord) means anything, and `general.name` says so to whoever lists models.

The file is the same, byte for byte, on every machine: weights come from SHAKE-128 streams named
after their tensor, go through arithmetic that IEEE 754 rounds in one way only, and nothing in the
file depends on the time, the host or a random generator's version.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import gguf
import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float32]

NAME = "rackserve tiny (random weights)"
DESCRIPTION = "Untrained: every weight is noise. Exercises fetching, verifying and serving, nothing else."

LAYERS = 4
EMBEDDING = 256
FEED_FORWARD = 768
HEADS = 4
KV_HEADS = 2
HEAD_LENGTH = EMBEDDING // HEADS
KV_EMBEDDING = KV_HEADS * HEAD_LENGTH
CONTEXT = 8192
RMS_EPSILON = 1e-5
ROPE_BASE = 10_000.0

UNKNOWN_ID, BOS_ID, EOS_ID = 0, 1, 2

# SentencePiece writes the space before a word as this character.
SPACE = "\u2581"

# ChatML, which every template engine (llama-server's own, Jinja2) renders alike; its marks are plain text here, because
# the vocabulary has no special tokens. With "assistant:" for a generation prompt llama.cpp 0.5 cannot start a grammar.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

# One channel of the hidden state is kept constant through the whole network, because RMSNorm has no
# bias that could make some tokens likelier than others. Each output row reads that channel.
BIAS_CHANNEL = 0
BIAS_VALUE = 4.0
BIAS_WEIGHT = 2.0
# Spread of the other output weights: gives logits a standard deviation near 2, so that sampling at
# ordinary temperatures neither repeats one word nor picks evenly.
OUTPUT_SPREAD = 0.2

WORDS = """
a about above after again air all along also always an and animal another answer any are around as
ask at away back be because been before begin being below best better between big bird black blue
boat body book both box boy bright bring brown build but by call came can car carry chair change
children city clean clear close cloud cold come cook corner could count country cut dark day deep
did different do does dog door down draw dream drive dry each early earth easy eat egg end enough
even evening ever every eye face fall family far farm fast father feel few field find fire first
fish five floor flower fly follow food foot for forest four free friend from full game garden gave
get girl give glass go gold good grass great green ground group grow had half hand happy hard has
have he head hear heart heavy help her here high hill him his hold home horse hot hour house how
hundred I idea if in inside into is island it its just keep kind king knew know lake land large last
late laugh lead learn leave left letter life light like line list little live long look lost love
low made make man many map mark may me mean milk mind money moon more morning most mother mountain
move much music must my name near need never new next night no north not nothing now number of off
often old on once one only open or orange other our out over own page paper part path people piece
place plain plant play point quick quiet rain ran reach read ready red rest right river road rock
room round run said same sand saw say school sea second see seed seem set seven shall she ship short
should show side simple since sing sit six sky sleep slow small snow so soft some song soon sound
south stand star start stay step still stone stop story street strong study such summer sun sure
table take talk tell ten than that the their them then there these they thing think this those three
through time to today together told too took top toward town train travel tree true try turn two
under until up us use very voice wait walk wall want warm was watch water way we week well went were
west what wheel when where which while white who why wide will wind window winter wish with without
wood word work world would write year yellow yes you young your
"""

PUNCTUATION = ".,"


@dataclass(frozen=True, slots=True)
class Token:
    """One vocabulary entry. `spoken` tokens are the only ones the model is likely to sample."""

    text: str
    kind: gguf.TokenType
    spoken: bool = False


def write_tiny_gguf(path: Path) -> None:
    """Write the model to `path` (about 4 MB), whole or not at all: `<path>.partial` is renamed to it."""
    partial = path.with_name(f"{path.name}.partial")
    tokens = vocabulary()
    with closing(gguf.GGUFWriter(partial, "llama")) as writer:
        _add_metadata(writer, vocab_size=len(tokens))
        _add_tokenizer(writer, tokens)
        for name, weights in _tensors(tokens):
            _add_tensor(writer, name, weights)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    partial.replace(path)


def vocabulary() -> list[Token]:
    """Control tokens, one token for each byte value, single characters, then words and their prefixes.

    SentencePiece joins two neighbouring pieces at a time, so a word is only ever reached if the
    pieces on the way to it exist: hence every prefix. They read prompts and are not spoken.
    """
    control = [
        Token("<unk>", gguf.TokenType.UNKNOWN),
        Token("<s>", gguf.TokenType.CONTROL),
        Token("</s>", gguf.TokenType.CONTROL),
    ]
    byte_values = [Token(f"<0x{value:02X}>", gguf.TokenType.BYTE) for value in range(256)]
    characters = [SPACE, *map(chr, range(ord("!"), ord("~") + 1))]
    words = {SPACE + word for word in WORDS.split()}
    prefixes = {word[:end] for word in words for end in range(2, len(word) + 1)}
    # Sorted, since a set has no order of its own; short pieces first, so that scores fall with rank.
    ordered = [*characters, *sorted(prefixes, key=lambda piece: (len(piece), piece))]
    pieces = [Token(text, gguf.TokenType.NORMAL, spoken=text in words or text in PUNCTUATION) for text in ordered]
    return [*control, *byte_values, *pieces]


def _add_metadata(writer: gguf.GGUFWriter, *, vocab_size: int) -> None:
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(NAME)
    writer.add_description(DESCRIPTION)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(EMBEDDING)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD_LENGTH)
    writer.add_value_length(HEAD_LENGTH)
    writer.add_rope_dimension_count(HEAD_LENGTH)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_layer_norm_rms_eps(RMS_EPSILON)
    writer.add_vocab_size(vocab_size)


def _add_tokenizer(writer: gguf.GGUFWriter, tokens: Sequence[Token]) -> None:
    writer.add_tokenizer_model("llama")
    writer.add_token_list([token.text for token in tokens])
    # A score ranks a merge: the later a piece stands in the vocabulary, the longer it is and the later it is tried.
    writer.add_token_scores([float(-index) for index in range(len(tokens))])
    writer.add_token_types([token.kind for token in tokens])
    writer.add_unk_token_id(UNKNOWN_ID)
    writer.add_bos_token_id(BOS_ID)
    writer.add_eos_token_id(EOS_ID)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(True)
    writer.add_chat_template(CHAT_TEMPLATE)


def _add_tensor(writer: gguf.GGUFWriter, name: str, weights: Floats) -> None:
    """Matrices are stored as Q8_0; vectors (the norms) stay F32, as llama.cpp requires."""
    if weights.ndim == 1:
        writer.add_tensor(name, weights)
        return
    kind = gguf.GGMLQuantizationType.Q8_0
    writer.add_tensor(name, gguf.quants.quantize(weights, kind), raw_dtype=kind)


def _tensors(tokens: Sequence[Token]) -> Iterator[tuple[str, Floats]]:
    """Every tensor of the model by name, shaped (outputs, inputs) or, for a norm, (EMBEDDING,)."""
    yield "token_embd.weight", _embedding(len(tokens))
    for layer in range(LAYERS):
        yield from _layer_tensors(f"blk.{layer}")
    yield "output_norm.weight", np.ones(EMBEDDING, dtype=np.float32)
    yield "output.weight", _output(tokens)


def _layer_tensors(prefix: str) -> Iterator[tuple[str, Floats]]:
    shapes = {
        "attn_q": (EMBEDDING, EMBEDDING),
        "attn_k": (KV_EMBEDDING, EMBEDDING),
        "attn_v": (KV_EMBEDDING, EMBEDDING),
        "attn_output": (EMBEDDING, EMBEDDING),
        "ffn_gate": (FEED_FORWARD, EMBEDDING),
        "ffn_up": (FEED_FORWARD, EMBEDDING),
        "ffn_down": (EMBEDDING, FEED_FORWARD),
    }
    for part in ("attn_norm", "ffn_norm"):
        yield f"{prefix}.{part}.weight", np.ones(EMBEDDING, dtype=np.float32)
    for part, (outputs, inputs) in shapes.items():
        name = f"{prefix}.{part}.weight"
        weights = _noise(name, (outputs, inputs), spread=math.sqrt(3 / inputs))
        if part in ("attn_output", "ffn_down"):
            # These two are what a layer adds to the hidden state: they must leave the bias channel alone.
            weights[BIAS_CHANNEL] = 0
        yield name, weights


def _embedding(vocab_size: int) -> Floats:
    """(vocab_size, EMBEDDING), every row starting the bias channel at the same value."""
    name = "token_embd.weight"
    weights = _noise(name, (vocab_size, EMBEDDING), spread=1.0)
    weights[:, BIAS_CHANNEL] = BIAS_VALUE
    return weights


def _output(tokens: Sequence[Token]) -> Floats:
    """(vocab_size, EMBEDDING): spoken tokens read the bias channel with +BIAS_WEIGHT, the others with -BIAS_WEIGHT.

    Bytes sampled at random would seldom be valid UTF-8, and an end token sampled at random would
    make the length of an answer a matter of luck.
    """
    weights = _noise("output.weight", (len(tokens), EMBEDDING), spread=OUTPUT_SPREAD)
    weights[:, BIAS_CHANNEL] = [BIAS_WEIGHT if token.spoken else -BIAS_WEIGHT for token in tokens]
    return weights


def _noise(name: str, shape: tuple[int, int], *, spread: float) -> Floats:
    """Uniform in [-spread, spread), from the SHAKE-128 stream called `name`.

    One 16-bit integer for each weight: its division by a power of two is exact, which leaves a
    single rounding, the same everywhere.
    """
    count = shape[0] * shape[1]
    stream = hashlib.shake_128(f"rackserve tiny model: {name}".encode()).digest(2 * count)
    units = np.frombuffer(stream, dtype="<i2").astype(np.float32) / np.float32(2**15)
    return (units * np.float32(spread)).reshape(shape)
