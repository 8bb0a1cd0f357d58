"""`safevlm eval concepts`."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Any

from .options import MINI

SCENES, PHOTOGRAPHS = "scenes", "photographs"
ANSWERS = "answers.jsonl"
ORDINARY = 150
"""Ordinary questions about the embedded model's world, where none are asked for by number."""


def eval_concepts(
    *,
    concepts: str = SCENES,
    harmless: str | None = None,
    photos: str | None = None,
    n: int = 4,
    seed: int = 0,
    questions: str | None = None,
    kinds: str = "",
    general: int | None = None,
    model: str = MINI,
    guard: bool = True,
    steer: str | None = None,
    backbone: str | None = None,
    server: str | None = None,
    server_model: str = "",
    judges: str = "rules,trained",
    judge_server: str | None = None,
    judge_model: str = "",
    key_env: str = "",
    timeout: float = 60.0,
    out: str = "concepts",
    batch_size: int = 16,
    max_new_tokens: int = 64,
    device: str | None = None,
    per_concept: bool = False,
    json: bool = False,
    markdown: bool = False,
) -> int:
    """Measure what a model makes of unsafe concepts: perception, alignment in images and in words, and the gap.

    Args:
        concepts: scenes or photographs (of the embedded model's world), a folder <category>/<concept>/<images>, a Parquet
            file or folder of them, yiting/UnsafeConcepts, yiting/UnsafeBench, or hf:<org>/<name>.
        harmless: a second set, as above, whose concepts are harmless.
        photos: folder with photos/ and photos_native/, for --concepts photographs.
        n: images of each concept, at most.
        seed: random seed of the choice of images, and of the options of the four-way choice.
        questions: YAML file with perception, image, text, warning, inviting; by default the library's own.
        kinds: which questions, separated by commas: perception, image, text, text_white, context; by default all.
        general: ordinary questions about harmless images of the embedded model's world, at most; by default 150 where scenes or
            photographs are asked all kinds, and none otherwise.
        model: name of an embedded model, or folder or hub id of safety modules, which is measured with its guard.
        guard: use the guard; --no_guard measures the plain backbone.
        steer: folder of a direction (of `safevlm steer fit`), along which VLM-Guard steers the model.
        backbone: measure any image-text-to-text model of transformers instead: its hub id or folder, or the folder of an
            alignment (of `safevlm train sft`, `dpo` or `ppo`).
        server: measure a model on an OpenAI-compatible server instead: its address, such as http://localhost:8000/v1.
        server_model: the server's name for that model.
        judges: who reads the answers, separated by commas: rules, trained.
        judge_server: one more judge: the address of an OpenAI-compatible server.
        judge_model: the server's name for that judge.
        key_env: name of the environment variable with the servers' API key; by default none is sent.
        timeout: seconds to wait for a server's answer.
        out: folder for answers.jsonl, concepts.json and concepts.png; answers that are there are not asked for again.
        batch_size: prompts in a call.
        max_new_tokens: maximum length of an answer, in tokens.
        device: torch device of the model, such as cpu or cuda:0; cpu by default.
        per_concept: print a line for each concept, too.
        json: print JSON: [{target, concepts, judge, rows: [{name, level, unsafe, cells: {column: {dropped, strict, na, failed}},
            traits: {column: {value, low, high, n}}}]}].
        markdown: print the tables of docs/concepts.md, in Markdown.
    """
    from safevlm import terminal
    from safevlm.evals.concepts import AnswerCache, ask, concepts_markdown, measure, write_measured

    readers = _judges(judges, judge_server, judge_model, key_env=key_env, timeout=timeout)
    given = _concept_set(concepts, harmless, photos=photos, n=n, seed=seed)
    if general is None:
        general = ORDINARY if concepts in (SCENES, PHOTOGRAPHS) and not kinds else 0
    probes = _probes(given, questions, kinds, seed=seed)
    probes += _ordinary(general, photos if concepts == PHOTOGRAPHS else None, seed=seed)
    if server is None:
        target, version = _local(model, backbone, guard=guard, steer=steer, device=device)
    elif backbone is None and steer is None and guard:
        target, version = _remote(server, server_model, key_env, timeout)
    else:
        raise ValueError(
            "--server goes without --backbone, --steer and --no_guard; run the measurement once for each model"
        )
    with terminal.eval_progress(quiet=json or markdown) as advance:
        answers = ask(
            target, probes, cache=AnswerCache(Path(out) / ANSWERS), version=version, batch_size=batch_size,
            max_new_tokens=max_new_tokens, on_progress=advance,
        )  # fmt: skip
    found = [measure(probes, answers, judge, target=target.name, concepts=given.name) for judge in readers]
    write_measured(Path(out), found)
    if json:
        print(json_module.dumps([measured.to_dict() for measured in found], indent=2))
    elif markdown:
        print(concepts_markdown(found, concepts=per_concept))
    else:
        terminal.show_concepts(found, Path(out), concepts=per_concept)
    return 0


def _names(listed: str) -> list[str]:
    return [name.strip() for name in listed.split(",") if name.strip()]


def _judges(listed: str, server: str | None, model: str, *, key_env: str, timeout: float) -> list[Any]:
    from safevlm.endpoint import Endpoint
    from safevlm.judges import EndpointJudge, judges_by_name

    found: list[Any] = [*judges_by_name(_names(listed))]
    if server is not None:
        found.append(EndpointJudge(Endpoint(server, model, key_env, timeout)))
    if not found:
        raise ValueError("no judge; name one with --judges or --judge_server")
    return found


def _concept_set(location: str, harmless: str | None, *, photos: str | None, n: int, seed: int) -> Any:
    from safevlm.demo import embedded_concepts
    from safevlm.labelled import read_concepts

    if location == PHOTOGRAPHS and photos is None:
        raise ValueError(
            f"--concepts {PHOTOGRAPHS} needs --photos, the folder with photos/ and photos_native/"
        )
    if location in (SCENES, PHOTOGRAPHS):
        given = embedded_concepts(n=n, seed=seed, photos=photos if location == PHOTOGRAPHS else None)
    else:
        given = read_concepts(location, n=n, seed=seed)
    return given if harmless is None else given + read_concepts(harmless, harmless=True, n=n, seed=seed)


def _probes(given: Any, questions: str | None, kinds: str, *, seed: int) -> list[Any]:
    from safevlm.evals.concepts import KINDS, make_probes
    from safevlm.labelled import ConceptQuestions

    asked = ConceptQuestions() if questions is None else ConceptQuestions.from_yaml(questions)
    return list(make_probes(given, asked, seed=seed, kinds=_names(kinds) or KINDS))


def _ordinary(n: int, photos: str | None, *, seed: int) -> list[Any]:
    from safevlm.demo import embedded_questions
    from safevlm.evals.concepts import general_probes

    return list(general_probes(embedded_questions(n=n, seed=seed, photos=photos))) if n else []


def _local(
    model: str, backbone: str | None, *, guard: bool, steer: str | None, device: str | None
) -> tuple[Any, str]:
    from safevlm.evals.concepts import load_guard_target, load_plain_target

    if backbone is None:
        return load_guard_target(model, guard=guard, steer=steer, device=device)
    if steer is not None or not guard:
        raise ValueError(
            "--steer and --no_guard are for --model; name safety modules, whose backbone is steered"
        )
    return load_plain_target(backbone, device=device)


def _remote(server: str, model: str, key_env: str, timeout: float) -> tuple[Any, str]:
    from safevlm.endpoint import Endpoint
    from safevlm.evals.concepts import EndpointTarget

    target = EndpointTarget(Endpoint(server, model, key_env, timeout))
    return target, target.name
