from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from tunebook.engine import (
    answer,
    for_inference,
    for_training,
    model_lock,
    patch,
    stream_chat,
    unpatch,
)
from tunebook.errors import ConversationTooLong, RowInvalid, RunFailed, TemplateInvalid

HELLO = [{"role": "user", "content": "Hello, tiny one"}]


@pytest.fixture
def model(tiny_model, with_lora, byte_tokenizer):
    """A tuned random model that speaks in bytes and never ends by itself."""
    return with_lora(talker(tiny_model, byte_tokenizer), tuned=True)


def talker(tiny_model, tokenizer):
    base = tiny_model("llama", vocab_size=len(tokenizer), tie_word_embeddings=False)
    with torch.no_grad():
        base.get_output_embeddings().weight[:6] = 0.0  # no special token is ever the likeliest
    return base


def generated_ids(model, tokenizer, messages, count: int) -> list[int]:
    """What `model.generate` itself says, greedily."""
    prompt = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    ).to(model.device)
    ids = model.eval().generate(**prompt, max_new_tokens=count, do_sample=False, pad_token_id=0)
    return ids[0, prompt["input_ids"].shape[1] :].tolist()


def generated(model, tokenizer, messages, count: int) -> str:
    ids = generated_ids(model, tokenizer, messages, count)
    return tokenizer.decode(ids, skip_special_tokens=True)


def test_greedy_is_what_generate_says(model, byte_tokenizer):
    expected = generated(model, byte_tokenizer, HELLO, 24)
    pieces = list(stream_chat(model, byte_tokenizer, HELLO, max_new_tokens=24))
    assert "".join(pieces) == expected
    assert len(pieces) > 5
    assert answer(model, byte_tokenizer, HELLO, max_new_tokens=24) == expected


def test_a_patched_model_says_the_same(model, byte_tokenizer):
    expected = answer(model, byte_tokenizer, HELLO, max_new_tokens=24)
    patch(model, device="any")
    assert answer(model, byte_tokenizer, HELLO, max_new_tokens=24) == expected
    unpatch(model)


def test_words_alone_are_a_user_message(model, byte_tokenizer):
    expected = answer(model, byte_tokenizer, HELLO, max_new_tokens=5)
    assert answer(model, byte_tokenizer, "Hello, tiny one", max_new_tokens=5) == expected


def test_stop_ends_the_answer_midway(model, byte_tokenizer):
    stop, pieces = threading.Event(), []
    hook = model.register_forward_hook(lambda *_: time.sleep(0.01))
    for piece in stream_chat(model, byte_tokenizer, HELLO, max_new_tokens=200, stop=stop):
        pieces.append(piece)
        if len(pieces) == 3:
            stop.set()
    hook.remove()
    assert 3 <= len(pieces) < 50


def test_closing_the_iterator_stops_the_model_and_gives_it_back(model, byte_tokenizer):
    stream = stream_chat(model, byte_tokenizer, HELLO, max_new_tokens=200)
    next(stream)
    stream.close()
    assert not [t for t in threading.enumerate() if t.name == "tunebook-chat"]
    assert model_lock(model).acquire(timeout=1)
    model_lock(model).release()


def test_without_its_adapter_the_model_answers_as_before(
    model, tiny_model, byte_tokenizer, with_lora
):
    tuned = answer(model, byte_tokenizer, HELLO, max_new_tokens=24)
    base = answer(model, byte_tokenizer, HELLO, max_new_tokens=24, adapter=False)
    original = talker(tiny_model, byte_tokenizer)
    assert base != tuned
    assert base == generated(original, byte_tokenizer, HELLO, 24)
    assert answer(model, byte_tokenizer, HELLO, max_new_tokens=24) == tuned


@pytest.mark.parametrize("adapter", [True, False])
def test_the_model_is_left_as_it_was(model, byte_tokenizer, adapter):
    model.train()
    model.gradient_checkpointing_enable()
    model.base_model.model.model.layers[0].eval()
    model.config.use_cache = False
    modes = [module.training for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    state = torch.get_rng_state()
    answer(model, byte_tokenizer, HELLO, max_new_tokens=4, temperature=1.0, adapter=adapter)
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert torch.equal(torch.get_rng_state(), state)
    assert model.config.use_cache is False
    assert model.get_base_model().model.layers[1].gradient_checkpointing


def test_a_model_that_trains_with_checkpointing_still_answers_with_a_cache(model, byte_tokenizer):
    expected = answer(model, byte_tokenizer, HELLO, max_new_tokens=12)
    model.gradient_checkpointing_enable()
    for_training(model)
    lengths = []
    inner = model.get_base_model().model
    hook = inner.layers[0].register_forward_hook(lambda m, a, out: lengths.append(out.shape[1]))
    assert answer(model, byte_tokenizer, HELLO, max_new_tokens=12) == expected
    hook.remove()
    assert set(lengths[1:]) == {1}


def test_sampling_varies_and_a_seed_repeats_it(model, byte_tokenizer):
    def say(**more):
        return answer(model, byte_tokenizer, HELLO, max_new_tokens=24, temperature=2.0, **more)

    assert say(seed=3) == say(seed=3)
    assert len({say() for _ in range(3)}) > 1
    greedy = answer(model, byte_tokenizer, HELLO, max_new_tokens=24)
    assert say(top_p=1e-9) == greedy


def test_end_tokens_end_the_answer(model, byte_tokenizer):
    full = generated_ids(model, byte_tokenizer, HELLO, 24)
    head = model.get_output_embeddings().weight
    with torch.no_grad():  # at the latest where the sixth token came, the end is likelier
        head[byte_tokenizer.eos_token_id] = 1.5 * head[full[5]]
    model.get_base_model().generation_config.eos_token_id = None  # the tokenizer's must do
    text = answer(model, byte_tokenizer, HELLO, max_new_tokens=24)
    assert text in [byte_tokenizer.decode(full[:count]) for count in range(6)]


def test_errors_of_the_generating_thread_reach_the_reader(model, byte_tokenizer):
    def fail(*_):
        raise RuntimeError("out of chalk")

    hook = model.get_base_model().model.norm.register_forward_hook(fail)
    with pytest.raises(RunFailed, match="out of chalk") as caught:
        answer(model, byte_tokenizer, HELLO)
    hook.remove()
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert answer(model, byte_tokenizer, HELLO, max_new_tokens=2) is not None


def test_conversations_that_cannot_be_written_are_named_errors(model, byte_tokenizer):
    with pytest.raises(RowInvalid):
        stream_chat(model, byte_tokenizer, [])
    with pytest.raises(TemplateInvalid, match="unknown role wizard"):
        stream_chat(model, byte_tokenizer, [{"role": "wizard", "content": "?"}])
    with pytest.raises(ConversationTooLong, match="256"):
        stream_chat(model, byte_tokenizer, "a" * 300)
    byte_tokenizer.chat_template = None
    with pytest.raises(TemplateInvalid, match="no chat template"):
        stream_chat(model, byte_tokenizer, HELLO)


def test_the_answer_ends_where_the_context_does(model, byte_tokenizer):
    text = answer(model, byte_tokenizer, "a" * 250, max_new_tokens=100)
    assert len(text) <= 4


def test_two_threads_get_the_answers_of_one(model, byte_tokenizer):
    questions = ["one", "two", "three", "four"]
    expected = [answer(model, byte_tokenizer, q, max_new_tokens=16) for q in questions]
    with ThreadPoolExecutor(4) as pool:
        both = pool.map(
            lambda q: (
                answer(model, byte_tokenizer, q, max_new_tokens=16),
                answer(model, byte_tokenizer, q, max_new_tokens=16, adapter=False),
            ),
            questions,
        )
        assert [tuned for tuned, _ in both] == expected


def test_training_in_another_thread_is_not_disturbed(model, byte_tokenizer, input_ids):
    model.train()
    labels = input_ids.clamp_max(len(byte_tokenizer) - 1)
    modes, steps, done = [], [], threading.Event()

    def train() -> None:
        while not done.is_set():
            with model_lock(model):
                modes.append(model.training)
                model(input_ids=labels, labels=labels).loss.backward()
                steps.append(all(p.grad is not None for p in model.parameters() if p.requires_grad))
            time.sleep(0.001)

    thread = threading.Thread(target=train)
    thread.start()
    try:
        expected = answer(model, byte_tokenizer, HELLO, max_new_tokens=8, adapter=False)
        for _ in range(5):
            assert answer(model, byte_tokenizer, HELLO, max_new_tokens=8, adapter=False) == expected
    finally:
        done.set()
        thread.join()
    assert len(steps) > 1
    assert all(modes)
    assert all(steps)


def test_a_callback_that_holds_the_lock_may_answer(model, byte_tokenizer):
    with model_lock(model):
        assert answer(model, byte_tokenizer, HELLO, max_new_tokens=2) is not None


def test_stop_is_heard_while_a_training_step_holds_the_model(model, byte_tokenizer):
    stop, held, release = threading.Event(), threading.Event(), threading.Event()

    def hold() -> None:
        with model_lock(model):
            held.set()
            release.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    stop.set()
    assert list(stream_chat(model, byte_tokenizer, HELLO, stop=stop)) == []
    release.set()
    thread.join()


def test_a_model_and_its_wrapper_share_a_lock(model):
    assert model_lock(model) is model_lock(model.get_base_model())
    lock = model_lock(model)
    with lock, lock:
        assert lock.held
    assert not lock.held
    with pytest.raises(RuntimeError):
        lock.release()


def test_modes_for_inference_and_training(model):
    assert not for_inference(model).training
    assert model.config.use_cache
    assert for_training(model).training
    assert not model.config.use_cache


def test_pieces_of_characters_wait_until_they_are_whole(byte_tokenizer):
    from tunebook.engine.streaming import Deltas

    text = "né 🎵 日本 end"
    pieces: list[str] = []
    deltas = Deltas(byte_tokenizer, pieces.append)
    deltas.put(torch.tensor([[1, 2, 3]]))
    for token in byte_tokenizer(text)["input_ids"]:
        deltas.put(torch.tensor([token]))
    deltas.put(byte_tokenizer("🎵", return_tensors="pt")["input_ids"][0, :2])
    deltas.end()
    assert pieces[:3] == ["n", "é", " "]
    assert "".join(pieces[:-1]) == text
    assert pieces[-1].strip("\ufffd") == ""


def test_pieces_of_real_tokenizers_join_to_the_decoded_text(unpacked_tokenizers):
    from transformers import AutoTokenizer

    from tunebook.engine.streaming import Deltas

    text = "The  quick brown fox\n\n- naïve café 🎵🎵 日本語, don't you?   def f(x):\n    return 1"
    for name, folder in unpacked_tokenizers.items():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        pieces: list[str] = []
        deltas = Deltas(tokenizer, pieces.append)
        deltas.put(torch.tensor([[0]]))
        for token in ids:
            deltas.put(torch.tensor([token]))
        deltas.end()
        assert "".join(pieces) == tokenizer.decode(ids, skip_special_tokens=True), name


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "gemma3_text", "qwen3", "phi3"])
def test_rows_padded_on_the_left_are_continued_as_unpatched(tiny_model, with_lora, family):
    model = with_lora(tiny_model(family), tuned=True).eval()
    generator = torch.Generator().manual_seed(2)
    prompts = {"input_ids": torch.randint(3, 300, (3, 10), generator=generator)}
    prompts["attention_mask"] = torch.ones_like(prompts["input_ids"])
    for row, empty in enumerate((0, 4, 9)):
        prompts["attention_mask"][row, :empty] = 0
    prompts = {name: value.to(model.device) for name, value in prompts.items()}

    def continued() -> torch.Tensor:
        return model.generate(
            **prompts, max_new_tokens=12, min_new_tokens=12, do_sample=False, pad_token_id=0
        )

    expected = continued()
    assert expected[:, 10:].unique().numel() > 3
    patch(model, device="any")
    assert model.config._attn_implementation == "tunebook"
    assert torch.equal(continued(), expected)
    with torch.no_grad():
        scores = model(**prompts, use_cache=True).logits
        unpatch(model)
        theirs = model(**prompts, use_cache=True).logits
    there = prompts["attention_mask"].bool()
    torch.testing.assert_close(scores[there], theirs[there], rtol=1e-4, atol=1e-4)
    assert torch.equal(continued(), expected)
