"""Writes a llama of some 70 thousand random weights whose words are bytes: it talks nonsense, through the real thing.

    python tiny.py tiny.gguf
"""

import sys

import gguf
import numpy as np

WIDTH, HEADS, INNER, CONTEXT = 64, 2, 128, 4096
BEGIN, END = "<|bos|>", "<|eos|>"
# What is said for the most part, so that answers are readable ASCII.
LIKELY = b"abcdefghijklmnopqrstuvwxyz     ,."
# How soon it ends by itself: rarely before max_tokens.
ENDS = -0.5


def alphabet():
    """All bytes as GPT-2's tokenizer writes them: what can't be printed is moved behind what can."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) if byte in printable else chr(256 + moved.index(byte)) for byte in range(256)]


def describe(model, words):
    model.add_name("cofferdam-tiny")
    model.add_context_length(CONTEXT)
    model.add_embedding_length(WIDTH)
    model.add_block_count(1)
    model.add_feed_forward_length(INNER)
    model.add_head_count(HEADS)
    model.add_head_count_kv(HEADS)
    model.add_layer_norm_rms_eps(1e-5)
    model.add_rope_dimension_count(WIDTH // HEADS)
    model.add_vocab_size(len(words))
    model.add_file_type(gguf.LlamaFileType.ALL_F32)
    model.add_tokenizer_model("gpt2")
    model.add_tokenizer_pre("gpt-2")
    model.add_token_list(words)
    control = [gguf.TokenType.CONTROL] * 2
    model.add_token_types([gguf.TokenType.NORMAL] * (len(words) - 2) + control)
    # A vocabulary of this kind has at least one merge.
    model.add_token_merges(["t h"])
    model.add_bos_token_id(words.index(BEGIN))
    model.add_eos_token_id(words.index(END))
    model.add_add_bos_token(True)
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "
    model.add_chat_template(template)


def weigh(model, words):
    dice = np.random.default_rng(7)

    def random(scale, *shape):
        return dice.normal(0, scale, shape).astype(np.float32)

    embedding = random(0.3, len(words), WIDTH)
    # One place that is the same for all words, by which the last layer can favour some.
    embedding[:, 0] = 2.0
    head = random(0.5, len(words), WIDTH)
    head[:, 0] = -10.0
    head[list(LIKELY), 0] = 0.0
    head[words.index(END), 0] = ENDS
    model.add_tensor("token_embd.weight", embedding)
    model.add_tensor("output.weight", head)
    for norm in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        model.add_tensor(f"{norm}.weight", np.ones(WIDTH, dtype=np.float32))
    for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
        model.add_tensor(f"blk.0.{part}.weight", random(0.05, WIDTH, WIDTH))
    model.add_tensor("blk.0.ffn_gate.weight", random(0.05, INNER, WIDTH))
    model.add_tensor("blk.0.ffn_up.weight", random(0.05, INNER, WIDTH))
    model.add_tensor("blk.0.ffn_down.weight", random(0.05, WIDTH, INNER))


def main(path):
    words = [*alphabet(), "th", BEGIN, END]
    model = gguf.GGUFWriter(path, "llama")
    describe(model, words)
    weigh(model, words)
    model.write_header_to_file()
    model.write_kv_data_to_file()
    model.write_tensors_to_file()
    model.close()


main(sys.argv[1])
