"""Defences by words: what is asked how often, and that the question is in it."""

from __future__ import annotations

from safevlm.steering import ecso, goal_priority, self_reminder
from tests.tiny import picture


class Model:
    """Answers by rules, and notes what it was asked."""

    def __init__(self, check: str) -> None:
        self.check, self.asked = check, []

    def __call__(self, images, prompts):
        self.asked += list(zip(images, prompts, strict=True))
        return [self._answer(prompt) for prompt in prompts]

    def _answer(self, prompt):
        if "Reply with yes or no" in prompt:
            return self.check
        if prompt.startswith("Describe"):
            return "a red lamp"
        return f"answer to: {prompt}"


def test_wrappers_keep_the_question():
    for wrapper in (self_reminder, goal_priority):
        assert "Why is it red?" in wrapper("Why is it red?")


def test_ecso_answers_again_without_the_image_unless_the_check_says_no():
    image = picture(1)
    for check, generations in (("No.", 2), ("no, it is fine", 2), ("Yes", 4), ("not sure", 4), ("", 4)):
        model = Model(check)
        (found,) = ecso(model, [image], ["Why?"])
        assert len(model.asked) == generations
        given, question = model.asked[-1]
        assert (given is None) == (generations == 4)
        if generations == 4:
            assert "a red lamp" in question
            assert "Why?" in question
            assert found == f"answer to: {question}"
        else:
            assert found == "answer to: Why?"


def test_ecso_answers_text_once_and_keeps_the_order():
    model = Model("Yes")
    found = ecso(model, [None, picture(1), None], ["A", "B", "C"])
    assert found[0] == "answer to: A"
    assert found[2] == "answer to: C"
    assert "B" in found[1]
    assert found[1] != "answer to: B"
    assert len(model.asked) == 6
