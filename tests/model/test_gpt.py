"""The model against a plain, slow reading of its definition; the cache against the full forward."""

import math

import pytest
import torch

from picochat.config import ModelConfig
from picochat.model.centred import centre_, largest_centre_error, projected_weights
from picochat.model.gpt import GPT, IGNORED_TARGET, Cache, initialise
from picochat.model.sampling import continuation_log_likelihoods, greedy_replies

CONFIG = ModelConfig(
    context=48, layers=2, width=48, heads=4, kv_heads=2, head_width=12, mlp_width=64
)
VOCAB = 97


def make_model(seed: int = 0, *, scale: float = 4.0) -> GPT:
    """Weights larger than a start's, so that every part of the block matters."""
    model = GPT(CONFIG, VOCAB)
    initialise(model, seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(scale)
            else:
                parameter.add_(
                    torch.rand(parameter.shape, generator=torch.Generator().manual_seed(seed)) * 0.5
                )
    return model


def plain_norm(x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + CONFIG.norm_eps).sqrt() * gain


def plain_rotate(vector: torch.Tensor, position: int) -> torch.Tensor:
    half = CONFIG.head_width // 2
    out = torch.empty_like(vector)
    for i in range(half):
        angle = position * CONFIG.rope_theta ** (-2 * i / CONFIG.head_width)
        c, s = math.cos(angle), math.sin(angle)
        out[i] = vector[i] * c - vector[half + i] * s
        out[half + i] = vector[half + i] * c + vector[i] * s
    return out


def plain_weights(model: GPT) -> dict[str, torch.Tensor]:
    """Copies in float64 that gradients can be taken for."""
    return {
        name: tensor.detach().double().requires_grad_()
        for name, tensor in model.state_dict().items()
    }


def plain_logits(w: dict[str, torch.Tensor], ids: list[int]) -> torch.Tensor:
    """One row, position by position, head by head."""
    width = CONFIG.head_width
    x = [w["embedding.weight"][i] for i in ids]
    for layer in range(CONFIG.layers):
        p = f"blocks.{layer}."
        n = [plain_norm(v, w[p + "norm.weight"]) for v in x]
        keys, values = [], []
        out = []
        for t, v in enumerate(n):
            k = (w[p + "attention.key.weight"] @ v).view(-1, width)
            keys.append(
                [plain_rotate(plain_norm(h, w[p + "attention.key_norm.weight"]), t) for h in k]
            )
            values.append((w[p + "attention.value.weight"] @ v).view(-1, width))
            q = (w[p + "attention.query.weight"] @ v).view(-1, width)
            heads = []
            for h in range(CONFIG.heads):
                shared = h // (CONFIG.heads // CONFIG.kv_heads)
                query = plain_rotate(plain_norm(q[h], w[p + "attention.query_norm.weight"]), t)
                scores = torch.stack(
                    [query @ keys[s][shared] / math.sqrt(width) for s in range(t + 1)]
                ).softmax(0)
                heads.append(sum(scores[s] * values[s][shared] for s in range(t + 1)))
            attention = w[p + "attention.out.weight"] @ torch.cat(heads)  # type: ignore[arg-type]
            gate = w[p + "mlp.gate.weight"] @ v
            mlp = w[p + "mlp.down.weight"] @ (
                gate * torch.sigmoid(gate) * (w[p + "mlp.up.weight"] @ v)
            )
            out.append(x[t] + attention + mlp)
        x = out
    return torch.stack([w["embedding.weight"] @ plain_norm(v, w["norm.weight"]) for v in x])


def test_logits_equal_the_plain_reading() -> None:
    model = make_model()
    ids = torch.randint(0, VOCAB, (1, 17), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        got = model(ids)[0].double()
        want = plain_logits(plain_weights(model), ids[0].tolist())
    assert float((got - want).abs().max() / want.abs().max()) < 2e-6


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2e-5), (torch.bfloat16, 4e-2)])
def test_gradients_equal_those_of_the_plain_reading(dtype: torch.dtype, bound: float) -> None:
    """Every weight's gradient, of an implementation that shares no code.

    In bfloat16 the products are joined.
    """
    model = make_model(scale=2.0)
    ids = torch.randint(0, VOCAB, (1, 13), generator=torch.Generator().manual_seed(2))
    model.loss_sum(ids[:, :-1], ids[:, 1:], dtype).backward()
    weights = plain_weights(model)
    torch.nn.functional.cross_entropy(
        plain_logits(weights, ids[0, :-1].tolist()), ids[0, 1:], reduction="sum"
    ).backward()
    for name, parameter in model.named_parameters():
        want = weights[name].grad
        assert want is not None and parameter.grad is not None
        assert float((parameter.grad.double() - want).norm() / want.norm()) < bound, name


def test_future_tokens_change_nothing_before_them() -> None:
    model = make_model()
    ids = torch.randint(0, VOCAB, (1, 20), generator=torch.Generator().manual_seed(4))
    other = ids.clone()
    other[0, 12:] = (other[0, 12:] + 1) % VOCAB
    with torch.no_grad():
        assert torch.equal(model(ids)[0, :12], model(other)[0, :12])


def test_cache_with_padded_rows_equals_the_full_forward() -> None:
    model = make_model()
    lengths = (20, 13, 7)
    rows = [
        torch.randint(0, VOCAB, (n,), generator=torch.Generator().manual_seed(n)) for n in lengths
    ]
    offset = torch.tensor([20 - n for n in lengths])
    padded = torch.stack(
        [
            torch.cat((torch.zeros(20 - n, dtype=torch.long), row))
            for n, row in zip(lengths, rows, strict=True)
        ]
    )
    valid = torch.arange(20)[None] >= offset[:, None]
    with torch.no_grad():
        cache = Cache(valid[:, :15], offset)
        parts = [model(padded[:, :15], torch.float32, cache)]
        for end in range(16, 21):
            cache.valid_BS = valid[:, :end]
            parts.append(model(padded[:, end - 1 : end], torch.float32, cache))
        cached = torch.cat(parts, dim=1)
        for number, (length, row) in enumerate(zip(lengths, rows, strict=True)):
            want = model(row[None])[0]
            assert (
                float((cached[number, 20 - length :] - want).abs().max() / want.abs().max()) < 1e-5
            )


def test_batched_replies_equal_one_at_a_time() -> None:
    model = make_model(scale=8.0)
    generator = torch.Generator().manual_seed(5)
    prompts = [
        torch.randint(0, VOCAB, (n,), generator=generator).tolist() for n in (3, 9, 30, 1, 9, 46)
    ]
    together = greedy_replies(model, prompts, end=0, max_new_tokens=12)
    alone = [greedy_replies(model, [prompt], end=0, max_new_tokens=12)[0] for prompt in prompts]
    assert together == alone
    assert len(together[5]) == CONFIG.context - 46
    for prompt, reply in zip(prompts, together, strict=True):
        ids = list(prompt)
        for token in reply:
            with torch.no_grad():
                assert int(model(torch.tensor([ids]))[0, -1].argmax()) == token
            ids.append(token)


def test_end_token_ends_a_reply() -> None:
    model = make_model(scale=8.0)
    prompt = [5, 6, 7]
    free = greedy_replies(model, [prompt], end=-1, max_new_tokens=6)[0]
    stopped = greedy_replies(model, [prompt, prompt], end=free[3], max_new_tokens=6)
    first = free.index(free[3])
    assert stopped == [free[:first], free[:first]]


def test_continuation_likelihoods_equal_step_by_step() -> None:
    model = make_model()
    pairs = [([1, 2, 3], [4, 5]), ([7], [8, 9, 10, 11]), ([1, 2, 3, 4, 5, 6], [7])]
    got = continuation_log_likelihoods(model, pairs)
    for (prompt, continuation), value in zip(pairs, got, strict=True):
        with torch.no_grad():
            log_probs = model(torch.tensor([prompt + continuation]))[0].double().log_softmax(-1)
        want = sum(
            float(log_probs[len(prompt) - 1 + i, token]) for i, token in enumerate(continuation)
        )
        assert value == pytest.approx(want, abs=1e-5)


def test_ignored_targets_carry_no_loss() -> None:
    model = make_model()
    ids = torch.randint(0, VOCAB, (2, 10), generator=torch.Generator().manual_seed(6))
    targets = torch.roll(ids, -1, 1)
    some = targets.clone()
    some[0] = IGNORED_TARGET
    with torch.no_grad():
        got, want = model.loss_sum(ids, some), model.loss_sum(ids[1:], targets[1:])
    assert float(got) == pytest.approx(float(want), rel=1e-6)


def test_untrained_model_is_near_uniform() -> None:
    """A tied head must not make the start predict the token just read, at the real width."""
    config = ModelConfig(context=64, layers=2, width=768, heads=12, kv_heads=4, mlp_width=512)
    model = GPT(config, 512)
    initialise(model, 0)
    ids = torch.randint(0, 512, (2, 65), generator=torch.Generator().manual_seed(7))
    loss = model.loss_sum(ids[:, :-1], ids[:, 1:]).item() / 128
    assert abs(loss - math.log(512)) < 1.0


def test_centring_is_idempotent_and_makes_rmsnorm_a_layernorm() -> None:
    model = make_model()
    assert largest_centre_error(model) > 1e-3
    centre_(model)
    assert largest_centre_error(model) < 1e-7
    before = {
        projected.name: projected.view().detach().clone() for projected in projected_weights(model)
    }
    centre_(model)
    assert all(
        float((p.view().detach() - before[p.name]).abs().max()) < 1e-7
        for p in projected_weights(model)
    )
    seen: list[torch.Tensor] = []
    for module in model.modules():
        if type(module).__name__ == "Norm":
            module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(torch.randint(0, VOCAB, (2, 30)))
    assert len(seen) == 3 * CONFIG.layers + 1
    for x in seen:
        rms = torch.nn.functional.rms_norm(x, (x.shape[-1],), None, CONFIG.norm_eps)
        layer = torch.nn.functional.layer_norm(x, (x.shape[-1],), None, None, CONFIG.norm_eps)
        assert float((rms - layer).abs().max()) < 2e-5
