"""What answers about images are like, whoever judges them: how varied, how long, and whether they say what is shown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from safevlm.evals.clusters import ClusteredEstimate, clustered_mean, clustered_proportion
from safevlm.judges import normalise

from .bleu import self_bleu

DIVERSITY, WORDS, NAMED, GENERAL = "diversity", "words", "named", "general"
TRAITS = (DIVERSITY, WORDS, NAMED, GENERAL)
"""1 - Self-BLEU, length in words, share that names the concept, and the share right of ordinary questions."""
_TOKEN = re.compile(r"[\w'-]+|[^\w\s]")
_ARTICLES = frozenset(("a", "an", "the"))
_DENIALS = frozenset(("no", "not", "never", "without", "isn't", "neither", "nor"))


def traits(
    texts: Sequence[str], names: Sequence[str], clusters: Sequence[str], *, all_names: Sequence[str]
) -> dict[str, ClusteredEstimate]:
    """Diversity, length and naming of answers, one entry per answer in each argument; those that rest on none are missing.

    - `diversity` is the mean of 1 - BLEU of each answer against the others, in [0, 1]. Answers without a word are left out.
      Its interval resamples the concepts of the answers, and not their references, among which a copy would be a match.
    - `words` is the mean length in words, as blanks part them.
    - `named` is the share that `names_concept`, over the answers about an image whose concept the set names: what an
      answer informs of, by proxy.

    Args:
        texts: answers.
        names: what is shown; "" where the set does not name it.
        clusters: what intervals resample.
        all_names: all concepts of the set.
    """
    found: dict[str, ClusteredEstimate] = {}
    said = [place for place, text in enumerate(texts) if re.search(r"\w", text)]
    if len(said) > 1:
        unlike = [1 - value for value in self_bleu([texts[place] for place in said])]
        mean = clustered_mean(unlike, [clusters[place] for place in said])
        found[DIVERSITY] = replace(mean, low=max(0.0, mean.low), high=min(1.0, mean.high))
    if texts:
        mean = clustered_mean([len(text.split()) for text in texts], clusters)
        found[WORDS] = replace(mean, low=max(0.0, mean.low))
    known = [place for place, name in enumerate(names) if name]
    if known:
        longer = {name: _longer(name, all_names) for name in set(names)}  # once for all answers
        hits = [names_concept(texts[place], names[place], others=longer[names[place]]) for place in known]
        found[NAMED] = clustered_proportion(hits, [clusters[place] for place in known])
    return found


def names_concept(answer: str, concept: str, *, others: Sequence[str] = ()) -> bool:
    """Whether an answer says that the concept is there: its words, in singular or plural, with any article or none.

    "No, there are two knives." names "a knife". "There is no knife." does not, and "a fire engine" does not name "fire"
    where "fire engine" is among the others.

    Args:
        answer: the text.
        concept: its name.
        others: names of the set; longer ones that hold this name are looked for first.
    """
    wanted, said = _words(concept), _words(answer)
    for longer in map(_words, _longer(concept, others)):
        for start in _places(said, longer):
            said[start : start + len(longer)] = [""] * len(longer)
    return any(not _denied(said[:start]) for start in _places(said, wanted))


def _longer(concept: str, others: Sequence[str]) -> list[str]:
    """The other names that hold this one and more words, the longest first."""
    wanted, words = _words(concept), {other: _words(other) for other in others}
    found = [other for other, own in words.items() if len(own) > len(wanted) and _places(own, wanted)]
    return sorted(found, key=lambda other: -len(words[other]))


def _words(text: str) -> list[str]:
    """Words in lower case, and marks; without articles."""
    return [word for word in _TOKEN.findall(normalise(text)) if word not in _ARTICLES]


def _places(said: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Where the words stand in a row, the last one in either number; nowhere where there are none."""
    size = len(wanted)
    if not size:
        return []
    return [
        start
        for start in range(len(said) - size + 1)
        if list(said[start : start + size - 1]) == list(wanted[:-1])
        and _forms(said[start + size - 1]) & _forms(wanted[-1])
    ]


def _forms(word: str) -> set[str]:
    """A word, and what may be its singular: "knives" -> knives, knive, kniv, knife, knif."""
    found = {word}
    for ending, singulars in (("s", ("",)), ("es", ("",)), ("ies", ("y",)), ("ves", ("f", "fe"))):
        stem = word.removesuffix(ending)
        if stem != word and len(stem) > 1:
            found |= {stem + singular for singular in singulars}
    return found


def _denied(before: Sequence[str]) -> bool:
    """Whether the last word before a name, up to a mark, denies it: "no", "is not", "there isn't any"."""
    last = [word for word in before[-2:] if word not in ("any", "single")][-1:]
    return bool(last) and (last[0] in _DENIALS or last[0].endswith("n't"))
