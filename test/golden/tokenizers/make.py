"""Small tokenizers of every kind with the ids that their own libraries give.

    pip install sentencepiece==0.2.3 tokenizers==0.23.3
    python make.py

Writes `<name>/tokenizer.model` or `<name>/tokenizer.json`, and `<name>.pairs.json`: texts with their
ids, no special tokens added. The stored files are the reference; other versions may train others.
"""

import json
import os
import random

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
SPACE = "\u2581"
random.seed(17)

WORDS = (
    "the half step that rounds Größe шаг 半歩 learns 1234 it's — (x+1) 😀 naïve café ПриВет don't "
    "WE'LL 12345678 न\u093fर् 한국어 \u3000 foo_bar x=1; // end <z> <0x0B> ▁ ▁▁"
).split(" ")
CHARS = list("abcXYZ019 .,;'\"\n\t  _-=/<>éßщ漢字カ한😀\u0301\u3000²")


def text():
    if random.random() < 0.4:
        return "".join(random.choice(CHARS) for _ in range(random.randint(0, 30)))
    parts = (random.choice(WORDS) + random.choice([" ", "  ", "\n", ""]) for _ in range(8))
    return "".join(parts)


CORPUS = [" ".join(random.choice(WORDS) for _ in range(12)) for _ in range(600)]
TEXTS = ["", " ", "  the half", *(text() for _ in range(60))]


def write(name, encode):
    pairs = [{"text": text, "ids": encode(text)} for text in TEXTS]
    with open(f"{HERE}/{name}.pairs.json", "w") as file:
        json.dump(pairs, file, ensure_ascii=False, separators=(",", ":"))


def save(name, tokenizer):
    os.makedirs(f"{HERE}/{name}", exist_ok=True)
    tokenizer.save(f"{HERE}/{name}/tokenizer.json", pretty=False)
    write(name, lambda text: tokenizer.encode(text, add_special_tokens=False).ids)


def pieces(name, **options):
    """A SentencePiece model, and the same as a tokenizer.json made as transformers' converter does."""
    os.makedirs(f"{HERE}/{name}", exist_ok=True)
    with open(f"{HERE}/corpus.txt", "w") as file:
        file.write("\n".join(CORPUS))
    sentencepiece.SentencePieceTrainer.train(
        input=f"{HERE}/corpus.txt",
        model_prefix=f"{HERE}/{name}/tokenizer",
        hard_vocab_limit=False,
        character_coverage=0.98,
        normalization_rule_name="identity",
        minloglevel=2,
        **options,
    )
    os.remove(f"{HERE}/corpus.txt")
    os.remove(f"{HERE}/{name}/tokenizer.vocab")
    model = sentencepiece.SentencePieceProcessor(model_file=f"{HERE}/{name}/tokenizer.model")
    write(name, model.encode)
    return model


def converted(name, source, metaspace):
    vocab = [(source.id_to_piece(i), source.get_score(i)) for i in range(source.vocab_size())]
    ids = {piece: i for i, (piece, _) in enumerate(vocab)}
    merges = []
    for piece, score in vocab:
        halves = [(piece[:k], piece[k:]) for k in range(1, len(piece))]
        known = [(ids[a], ids[b], a, b) for a, b in halves if a in ids and b in ids]
        merges += [(score, a, b) for _, _, a, b in sorted(known)]
    merges = [(a, b) for _, a, b in sorted(merges, key=lambda merge: -merge[0])]
    tokenizer = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if metaspace:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        steps = [normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]
        tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    special = [AddedToken(token, special=True) for token in ("<unk>", "<s>", "</s>")]
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens([AddedToken("<z>", normalized=False, rstrip=True)])
    save(name, tokenizer)


def byte_level(name, steps, ignore_merges):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|endoftext|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    save(name, tokenizer)


bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
words = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
small = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
ends = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
tekken = Regex(rf"{words}*{small}+|{words}+{small}*|\p{{N}}{ends}")
contraction = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
gpt4o = Regex(rf"{words}*{small}+{contraction}|{words}+{small}*{contraction}|\p{{N}}{{1,3}}{ends}")
thousands = Regex(r"\d{1,3}(?=(?:\d{3})*\b)")
byte_level("tekken", [pre_tokenizers.Split(tekken, "isolated"), bytes_only], True)
byte_level("gpt-4o", [pre_tokenizers.Split(gpt4o, "isolated"), bytes_only], False)
steps = [pre_tokenizers.Split(cut, "isolated") for cut in (thousands, gpt4o)]
byte_level("tiny_aya", [*steps, bytes_only], False)
kept = dict(byte_fallback=True, remove_extra_whitespaces=False)
bpe = pieces("pieces-bpe", model_type="bpe", vocab_size=420, **kept)
converted("pieces-prepend", bpe, metaspace=False)
converted("pieces-metaspace", bpe, metaspace=True)
pieces("pieces-unknown", model_type="bpe", vocab_size=200, byte_fallback=False)
pieces("pieces-unigram", model_type="unigram", vocab_size=420, **kept)
