"""Writes the numbers that the tests of crates/attn-metrics are held against.

    python -m venv DIR && DIR/bin/pip install sacrebleu==2.6.0 jiwer==4.0.0 rouge-score==0.1.2
    DIR/bin/python scripts/reference/metrics.py

Corpora of one to seven examples, picked by hand for what tokenizers and formulas trip over or drawn as word salad,
with BLEU, chrF and chrF++ of sacrebleu, errors of jiwer and ROUGE of rouge-score, in full precision and as sacrebleu
prints them. Beside them 13a tokens, stems of nltk, alignments long enough that rapidfuzz splits them, draws of
numpy's generator, and paired bootstraps: sacrebleu's own, which adds in float32, and the same resamples in float64.

Seeded: the file is the same from run to run with the same versions, which it names. `--seed`, `--corpora`, `--words`
and `--out` make a larger one to try, which the tests read all the same. Under a minute.
"""

import argparse
import importlib.metadata
import json
import logging
import pathlib
import platform
import random

import jiwer
import numpy as np
from nltk.stem import porter
from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest, _compute_p_value
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

OUT = pathlib.Path(__file__).parents[2] / "crates/attn-metrics/tests/fixtures/metrics.json"
ROUGE = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
RESAMPLES = 300
BOOTSTRAP_SEED = 12345  # sacrebleu's default

NASTY = [
    "", " ", "\t\n", ".", "...", "a", "A", "-", "--", "’", "'", "\"", "&", "&amp;", "&quot;", "&lt;b&gt;", "&amp;lt;",
    "The cat sat on the mat.", "the cat sat on the mat", "The cat  sat\ton the mat .", "Hello, world! Hello, world!",
    "It's 3.14, or 1,000.50; not .5 or 5. and 1,a a,1 a,b 1.2.3.", "1990-1995, A-1, 1-A, -5, 5-, 5--6, re-use",
    "<skipped>one<skipped> two-\nthree\nfour", "a<skip>b {c} [d] (e) f/g h\\i j|k l~m n^o p_q r`s t@u v#w x%y z*",
    "$5.00, £3,50 & €7.-", "e.g. i.e. etc.,and...so on,,,", "«Ça va?» – “Très bien…” „ja“",
    "猫坐在垫子上。", "猫 坐在 垫子,上。3.5米", "ネコはマットの上に座った。", "고양이가 매트 위에 앉았다.",
    "Кошка сидела на коврике.", "ΟΔΥΣΣΕΥΣ Σ ΑΣ. οδυσσεύς", "القطة على السجادة، نعم؟", "बिल्ली चटाई पर बैठी।",
    "😀😃 👍🏽 👩‍👩‍👧‍👦 flag 🇩🇪!", "👩‍👩‍👧 👩‍👩‍👧‍👦", "e\u0301 é n\u0303o ño Zalgo\u0300\u0301\u0302", "ﬁne ﬃ ½ ² ① K Å İstanbul ıI ß ẞ",
    "a\u00a0b\u2003c\u3000d\u2028e\u0085f", "a\u200bb\ufeffc\u00add", "a\x1cb\x1dc\x1ed\x1fe\x0bf\x0cg", "\u2028\u00a0",
    "(hi) (hi hi) ((hi)) ¿qué? 'tis 'twas' x. .x ,", "!!! ??? !?", "a a a a a a a", "a a a a b a a a",
    "0 00 000 0.0 0,0 ,0, .0.", "http://example.com/a?b=c&d=e#f user@mail.org 12:30 50% #tag @you C++ C#",
    "Running runners ran easily; nationalization of relational databases happily continued.",
    "First sentence here.\nSecond one there.\n\nThird sentence, here and there.", "Second one there.\nFirst sentence.",
    "word\n", "\nword", "x\r\ny\r\nz", "tab\tseparated\tvalues\there", "NaN null None \\n \\u0041 %s {}",
]

SYLLABLES = ["ba", "con", "di", "el", "fro", "gal", "hop", "in", "jay", "ky", "lu", "mis", "no", "op", "pre", "qua",
             "re", "ss", "tan", "u", "vy", "wil", "xe", "yt", "zz", "y", "ll", "at", "bl", "iz", "oy", "ee"]
SUFFIXES = """s es ies sses ss ed ied eed ing y ational tional enci anci izer bli abli alli entli eli ousli ization ation
ator alism iveness fulness ousness aliti iviti biliti fulli logi icate ative alize iciti ical ful ness al ance ence er
ic able ible ant ement ment ent sion tion ion ou ism ate iti ous ive ize e ll le ally fully edly ings ingly lled ying
tted ssed zzing yed ology ically ousness ments""".split()
IRREGULAR = """sky skies dying lying tying news innings inning outings outing cannings canning howe proceed exceed succeed
proceeds exceeding succeeded dies died ties tied cries cried spied fly flies say enjoy enjoyment feed agreed bled sing
motoring conflated troubled sized hopping tanned falling hissing fizzed failing filing happy geology theology archaeology
generalizations oscillators controlling rolling yyyy yyyyyy syzygy 2000s 1st 10ing 3eed aaaa eeee""".split()


def draw_word(rng):
    word = "".join(rng.choice(SYLLABLES) for _ in range(rng.randint(1, 3)))
    return word + (rng.choice(SUFFIXES) if rng.random() < 0.7 else "")


def draw_vocabulary(rng):
    words = [draw_word(rng) for _ in range(rng.randint(4, 25))]
    odd = ["3.5", "1,000", "2024-25", "U.S.", "it's", "don't", "&amp;", "&quot;x&quot;", "(so", "called)", "猫", "垫子。",
           "😀", "cafe\u0301", "café", "Straße", "İ", "…", "—", "-", "%", "a/b", "x_y", "“q”", "<b>"]
    return words + rng.sample(odd, rng.randint(0, 8))


def draw_sentence(rng, vocabulary, longest=14):
    words = [rng.choice(vocabulary) for _ in range(rng.randint(0 if rng.random() < 0.1 else 1, longest))]
    text = ""
    for i, word in enumerate(words):
        word = word.capitalize() if i == 0 or rng.random() < 0.05 else word
        text += word + rng.choice([" "] * 12 + ["  ", "\t", " \n", "\n", "\u00a0", ", ", "; ", ". "])
    return (text.rstrip() + rng.choice([".", ".", "!", "?", "", " ", " ."])) if words else text


def garble(rng, text, vocabulary, rate):
    words = []
    for word in text.split(" "):
        chance = rng.random()
        if chance < rate / 4:
            continue
        elif chance < rate / 2:
            words += [word, rng.choice(vocabulary)]
        elif chance < rate:
            words.append(rng.choice([rng.choice(vocabulary), word.lower(), word + "s", word[:-1], word[::-1]]))
        else:
            words.append(word)
    if rng.random() < rate and len(words) > 2:
        i = rng.randrange(len(words) - 1)
        words[i], words[i + 1] = words[i + 1], words[i]
    return " ".join(words)


def streams(references):
    """One list a reference, as sacrebleu has them; `None` where an example has fewer."""
    most = max(map(len, references))
    return [[refs[i] if i < len(refs) else None for refs in references] for i in range(most)]


def bleu(hypotheses, references, tokenize):
    metric = BLEU(tokenize=tokenize, force=True)
    score = metric.corpus_score(hypotheses, streams(references))
    return {
        "score": score.score, "precisions": score.precisions, "bp": score.bp,
        "sys_len": score.sys_len, "ref_len": score.ref_len,
        "line": score.format(signature=str(metric.get_signature())),
    }


def chrf(hypotheses, references, word_order):
    metric = CHRF(word_order=word_order)
    score = metric.corpus_score(hypotheses, streams(references))
    return {"score": score.score, "line": score.format(signature=str(metric.get_signature()))}


def errors(output, rate):
    counts = {name: getattr(output, name) for name in ("hits", "substitutions", "deletions", "insertions")}
    return {"counts": counts, "rate": float(rate)}


def wer(hypotheses, references):
    output = jiwer.process_words(references, hypotheses)
    return errors(output, output.wer)


def cer(hypotheses, references):
    output = jiwer.process_characters(references, hypotheses)
    return errors(output, output.cer)


SCORERS = {stemmed: rouge_scorer.RougeScorer(ROUGE, use_stemmer=stemmed) for stemmed in (False, True)}


def rouge_examples(hypotheses, references, stemmed):
    return [SCORERS[stemmed].score(reference, hypothesis) for hypothesis, reference in zip(hypotheses, references)]


def rouge(hypotheses, references, stemmed):
    scores = rouge_examples(hypotheses, references, stemmed)
    return {kind: [float(x) for x in np.mean([tuple(score[kind]) for score in scores], axis=0)] for kind in ROUGE}


def corpus(hypotheses, references):
    first = [refs[0] for refs in references]
    return {
        "hypotheses": hypotheses, "references": references,
        "bleu_13a": bleu(hypotheses, references, "13a"), "bleu_none": bleu(hypotheses, references, "none"),
        "chrf": chrf(hypotheses, references, 0), "chrf_plus_plus": chrf(hypotheses, references, 2),
        "wer": wer(hypotheses, first), "cer": cer(hypotheses, first),
        "rouge": rouge(hypotheses, first, False), "rouge_stemmed": rouge(hypotheses, first, True),
    }


def corpora(rng, n):
    yield corpus(NASTY, [[text] for text in NASTY])
    yield corpus(NASTY, [[text] for text in NASTY[1:] + NASTY[:1]])
    yield corpus(NASTY, [[text, text[::-1]] for text in reversed(NASTY)])
    yield corpus(["", "", ""], [["a b"], [""], ["c"]])
    for text in NASTY:
        yield corpus([text], [[rng.choice(NASTY)]])
    for _ in range(n):
        vocabulary, rate = draw_vocabulary(rng), rng.choice([0.0, 0.1, 0.2, 0.4, 0.8])
        references, hypotheses = [], []
        for _ in range(rng.choice([1, 1, 1, 2, 3, 5, 7])):
            text = draw_sentence(rng, vocabulary)
            hypotheses.append(garble(rng, text, vocabulary, rate))
            references.append([text])
        if rng.random() < 0.3:
            # More references, as many for all examples or not.
            more = rng.choice([[1], [2], [0, 1, 2]])
            for refs in references:
                refs += [garble(rng, refs[0], vocabulary, 0.5) for _ in range(rng.choice(more))]
        yield corpus(hypotheses, references)


def long_alignments(rng):
    """Texts of which rapidfuzz aligns the halves: more than 4 Mi pairs of characters within its band."""
    kinds = [("ab", 2300, 1.0), ("abc ", 2500, 0.9), ("abcdefgh", 2200, 0.3), ("ab", 4400, 0.9), ("a b", 4400, 0.9)]
    for letters, n, rate in kinds:
        reference = "".join(rng.choice(letters) for _ in range(n))
        hypothesis = "".join(
            rng.choice([c + rng.choice(letters), "", rng.choice(letters)]) if rng.random() < rate else c for c in reference
        )
        yield {"hypothesis": hypothesis, "reference": reference, "cer": cer([hypothesis], [reference])}


def p_value(ours, theirs, seen):
    differences = np.abs(ours - theirs)
    return _compute_p_value(differences - differences.mean(), abs(seen))


def paired(rng, n, rates):
    """Two systems, and sacrebleu's paired bootstrap of them."""
    vocabulary = draw_vocabulary(rng)
    references = [draw_sentence(rng, vocabulary) for _ in range(n)]
    system, baseline = ([garble(rng, text, vocabulary, rate) for text in references] for rate in rates)
    metrics = {"BLEU": BLEU(force=True), "chrF2": CHRF(), "chrF2++": CHRF(word_order=2)}
    test = PairedTest(
        [("baseline", baseline), ("system", system)], metrics, [references], test_type="bs", n_samples=RESAMPLES
    )
    _, scores = test()
    indices = np.random.default_rng(BOOTSTRAP_SEED).choice(n, size=(RESAMPLES, n), replace=True)

    def float64(values_of):
        """Interval of the system and of the difference; `values_of` has a system's value and its resamples'."""
        (ours, our_values), (theirs, their_values) = values_of(system), values_of(baseline)
        ends = lambda values: [float(x) for x in np.quantile(values, [0.025, 0.975])]
        return {
            "value": float(ours), "mean": float(our_values.mean()), "ends": ends(our_values),
            "difference": float(ours - theirs), "difference_mean": float((our_values - their_values).mean()),
            "difference_ends": ends(our_values - their_values),
            "p": p_value(our_values, their_values, ours - theirs),
        }

    def of_metric(metric):
        def values_of(hypotheses):
            stats = np.array(metric._extract_corpus_statistics(hypotheses, [references]), dtype=np.int64)
            score = lambda rows: metric._compute_score_from_stats([int(x) for x in rows.sum(0)]).score
            return score(stats), np.array([score(stats[drawn]) for drawn in indices])
        return values_of

    def wer_of(hypotheses):
        counts = [jiwer.process_words(r, h) for r, h in zip(references, hypotheses)]
        counts = np.array([(c.substitutions + c.deletions + c.insertions, c.hits + c.substitutions + c.deletions)
                           for c in counts])
        rate = lambda rows: rows[:, 0].sum() / rows[:, 1].sum()
        return rate(counts), np.array([rate(counts[drawn]) for drawn in indices])

    def rouge_of(hypotheses):
        f1 = np.array([score["rougeL"].fmeasure for score in rouge_examples(hypotheses, references, False)])
        return f1.mean(), np.array([f1[drawn].mean() for drawn in indices])

    case = {"system": system, "baseline": baseline, "references": references, "resamples": RESAMPLES,
            "seed": BOOTSTRAP_SEED, "wer": float64(wer_of), "rouge_l": float64(rouge_of)}
    for name, key in [("BLEU", "bleu"), ("chrF2", "chrf"), ("chrF2++", "chrf_plus_plus")]:
        result = scores[name][1]
        case[key] = float64(of_metric(metrics[name]))
        case[key]["sacrebleu"] = {"p": result.p_value, "mean": float(result.mean), "half_width": float(result.ci)}
    return case


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpora", type=int, default=200)
    parser.add_argument("--words", type=int, default=1_500)
    parser.add_argument("--out", type=pathlib.Path, default=OUT)
    args = parser.parse_args()
    logging.getLogger("sacrebleu").setLevel(logging.ERROR)
    rng = random.Random(args.seed)
    stemmer, tokenizer = porter.PorterStemmer(), Tokenizer13a()

    words = IRREGULAR + sorted({word for word in (draw_word(rng) for _ in range(args.words)) if len(word) > 3})
    draws = []
    for seed in (0, 1, 12345, 2**32 - 1, 2**32 + 7, 2**63 + 11):
        for n in (1, 2, 7, 1000, 3_000_000_000):
            drawn = np.random.default_rng(seed).choice(n, size=12, replace=True)
            draws.append({"seed": seed, "n": n, "drawn": [int(i) for i in drawn]})
    vocabulary = draw_vocabulary(rng)
    lines = NASTY + [draw_sentence(rng, vocabulary, 30) for _ in range(20)]
    lines += ["".join(rng.choice("a1.,-/&' \n{~") for _ in range(12)) for _ in range(150)]
    fixture = {
        "corpora": list(corpora(rng, args.corpora)),
        "tokens_13a": [[line, tokenizer(line.rstrip())] for line in lines],
        "stems": [[word, stemmer.stem(word)] for word in words],
        "long": list(long_alignments(rng)),
        "draws": draws,
        "paired": [paired(rng, 40, (0.3, 0.4)), paired(rng, 25, (0.2, 0.7)), paired(rng, 9, (0.5, 0.5))],
    }
    made_with = {name: importlib.metadata.version(name) for name in
                 ("sacrebleu", "jiwer", "rapidfuzz", "rouge-score", "nltk", "numpy")}
    parts = ['"made_with": ' + json.dumps({"python": platform.python_version(), **made_with})]
    # One case a line.
    for key, cases in fixture.items():
        parts.append(f'"{key}": [\n' + ",\n".join(json.dumps(case) for case in cases) + "\n]")
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text("{\n" + ",\n".join(parts) + "\n}\n")


if __name__ == "__main__":
    main()
