"""Tokens come with true probabilities, and the sampling settings do what they say."""

from __future__ import annotations

import pytest
import torch

from tunebook.engine import answer, stream_tokens
from tunebook.engine.decoding import Chooser

HELLO = [{"role": "user", "content": "Hello, tiny one"}]


@pytest.fixture
def model(tiny_model, with_lora, byte_tokenizer):
    """A tuned random model that speaks in bytes and never ends by itself."""
    base = tiny_model("llama", vocab_size=len(byte_tokenizer), tie_word_embeddings=False)
    with torch.no_grad():
        base.get_output_embeddings().weight[:6] = 0.0  # no special token is ever the likeliest
    return with_lora(base, tuned=True)


def test_tokens_are_the_answer_with_the_probabilities_of_the_model(model, byte_tokenizer):
    tokens = list(stream_tokens(model, byte_tokenizer, HELLO, max_new_tokens=12))
    assert "".join(token.text for token in tokens) == answer(
        model, byte_tokenizer, HELLO, max_new_tokens=12
    )
    prompt = byte_tokenizer.apply_chat_template(
        HELLO, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )["input_ids"]
    ids = torch.cat([prompt, torch.tensor([[token.id for token in tokens]])], dim=1)
    ids = ids.to(model.device)
    with torch.no_grad():
        true = model.eval()(ids).logits[0, prompt.shape[1] - 1 : -1].float().softmax(-1)
    for at, token in enumerate(tokens):
        assert token.probability == pytest.approx(float(true[at, token.id]), abs=1e-4)
        assert token.chance == 1.0
        likeliest = [p for _, p in token.alternatives]
        assert likeliest == sorted(likeliest, reverse=True)
        assert likeliest == pytest.approx(true[at].topk(5).values.tolist(), abs=1e-4)
        assert token.alternatives[0][1] == pytest.approx(token.probability)


def test_a_sampled_token_says_what_the_settings_made_of_it(model, byte_tokenizer):
    more = {"temperature": 1.5, "top_k": 3, "seed": 1}
    for token in stream_tokens(model, byte_tokenizer, HELLO, max_new_tokens=12, **more):
        if not token.alternatives:  # what was left of an unfinished character
            continue
        three = [p ** (1 / 1.5) for _, p in token.alternatives[:3]]
        chances = [part / sum(three) for part in three]
        assert min(abs(token.chance - chance) for chance in chances) < 1e-3


@pytest.mark.parametrize("setting", [{"top_k": 1}, {"min_p": 1.0}, {"top_p": 1e-9}])
def test_the_narrowest_setting_is_greedy(model, byte_tokenizer, setting):
    greedy = answer(model, byte_tokenizer, HELLO, max_new_tokens=12)
    hot = answer(model, byte_tokenizer, HELLO, max_new_tokens=12, temperature=2.0, **setting)
    assert hot == greedy


def test_the_models_own_settings_do_not_leak_in(model, byte_tokenizer):
    def say(**more):
        return answer(
            model, byte_tokenizer, HELLO, max_new_tokens=16, temperature=2.0, seed=5, **more
        )

    plain = say()
    own = model.get_base_model().generation_config
    own.temperature, own.top_k, own.top_p, own.min_p = 0.01, 1, 0.01, 1.0
    assert say() == plain
    own.repetition_penalty = 1.7
    assert say(repetition_penalty=1.0) == plain
    assert say() == say(repetition_penalty=1.7)


def test_repetition_is_penalised_before_the_choice():
    chooser = Chooser(temperature=0.0, repetition_penalty=2.0)
    scores = chooser.processors(torch.tensor([[1]]), torch.tensor([[1.0, 1.5, 0.0]]))
    assert int(scores.argmax()) == 0
    choice = chooser.choice(0)
    assert choice.ids[0] == 1
    assert choice.probability == pytest.approx(float(torch.tensor([1.0, 1.5, 0.0]).softmax(0)[0]))
