"""Checks that the shortcuts taken for speed change nothing. Run: python -m unittest discover scripts/demo"""

import random
import re
import sys
import tempfile
import unittest
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from hearth_demo import chat, cli, evaluation, export, layers, reasoner, skills, sums, tokenizer, words  # noqa: E402

ASSETS = Path(__file__).parents[2] / "assets/demo"


class Shortcuts(unittest.TestCase):
    def test_fast_rendering_equals_the_template(self) -> None:
        rng = random.Random(1)
        for _ in range(300):
            item = skills.lesson(rng)
            fast = "".join(text for text, _ in chat.segments(item.messages, item.tools))
            self.assertEqual(fast, chat.render_with_template(item.messages, item.tools))
            asked = chat.render_with_template(item.messages[:-1], item.tools, add_generation_prompt=True)
            self.assertEqual(chat.prompt(item.messages[:-1], item.tools), asked)

    def test_arguments_may_be_a_json_string(self) -> None:
        call = {"function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
        messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
        self.assertIn('"arguments": {"city": "Paris"}}', chat.render_with_template(messages))

    def test_chunked_delta_rule_equals_the_sequential_one(self) -> None:
        torch.manual_seed(0)
        q, k, v = (torch.randn(2, 3, 96, 32) for _ in range(3))
        k, g, beta = k / k.norm(dim=-1, keepdim=True), -torch.rand(2, 3, 96), torch.rand(2, 3, 96)
        state, out = torch.zeros(2, 3, 32, 32), []
        for t in range(96):
            state = state * g[:, :, t, None, None].exp()
            change = (v[:, :, t] - torch.einsum("bhkv,bhk->bhv", state, k[:, :, t])) * beta[:, :, t, None]
            state = state + k[:, :, t, :, None] * change[:, :, None]
            out.append(torch.einsum("bhkv,bhk->bhv", state, q[:, :, t]))
        torch.testing.assert_close(layers.delta_rule(q, k, v, g, beta), torch.stack(out, 2), atol=1e-4, rtol=1e-4)

    def test_a_word_keeps_its_tokens_after_a_space(self) -> None:
        rng = random.Random(2)
        texts = ["".join(text for text, _ in skills.document(rng)) for _ in range(500)]
        vocabulary = tokenizer.train(texts, 300, 100, cli.slot_words(), tokenizer.TAGS)
        space = vocabulary.encode(" ")
        for word in ("Lisbon", "Vrothia", "Reykjavik"):
            self.assertEqual(vocabulary.encode(" " + word), space + vocabulary.encode(word))
        self.assertEqual(vocabulary.decode(vocabulary.encode(texts[0])), texts[0])

    def test_splits_share_no_word(self) -> None:
        drawn = {
            split: {words.Words(random.Random(3), split).fresh() for _ in range(50)}
            for split in ("train", "dev", "test")
        }
        self.assertFalse(drawn["train"] & drawn["test"] or drawn["dev"] & drawn["test"])

    def test_reference_answers_count_as_right(self) -> None:
        for skill in evaluation.MEASURED:
            for item in evaluation.items(skill, 20, 4, "dev"):
                said = chat.segments(item.messages, item.tools)[-2][0].removesuffix("<|im_end|>")
                self.assertTrue(evaluation.right(item, evaluation.parse(said)), (skill, said))

    def test_a_shipped_model_read_back_and_exported_is_the_same_file(self) -> None:
        for name in cli.MODELS:
            with tempfile.TemporaryDirectory() as folder:
                again = Path(folder) / f"{name}.gguf"
                export.write(*export.read(ASSETS / f"{name}.gguf"), again)
                self.assertEqual(again.read_bytes(), (ASSETS / f"{name}.gguf").read_bytes())

    def test_a_guess_behind_known_states_is_the_first_guess(self) -> None:
        """With the trunk's states in place of its own, the second step of the head is the first one."""
        model, _ = export.read(ASSETS / "reasoner.gguf")
        tokens = torch.randint(0, model.config.vocab, (2, 64), generator=torch.Generator().manual_seed(1))
        starts = torch.zeros(2, 64, dtype=torch.bool)
        starts[:, 0] = starts[1, 17] = True
        mask = layers.attention_mask(starts)
        with torch.no_grad():
            hidden, draft, _, _ = model(tokens, starts)
            again = model.mtp.again(model.token_embd(tokens), hidden, hidden, starts, mask)
        self.assertLess((again - draft).abs().max().item(), 1e-3)

    def test_thoughts_are_true(self) -> None:
        rng = random.Random(5)
        for _ in range(3000):
            wanted = sums.draw(words.Words(rng, rng.choice(("train", "test"))))
            lines = wanted.thought().splitlines()
            if " = " not in lines[0]:
                self.assertTrue(lines[-1].startswith(lines.pop(0)) or wanted.result < 0)
            for line in lines:
                terms, result = line.split(" = ")
                self.assertTrue(re.fullmatch(r"\d+( [-+*] \d+)+", terms), line)
                self.assertEqual(eval(terms), int(result), line)  # noqa: S307
            self.assertTrue(lines[-1].endswith(f" = {wanted.result}"))

    def test_habits_favour_what_is_busy_until_it_is_busy_enough(self) -> None:
        shares = torch.tensor([[0.3, 0.1, 0.3, 0.3], [0.7, 0.1, 0.1, 0.1]])
        wants = torch.full((2, 4), 0.25, requires_grad=True)
        reasoner.habits(wants, shares).backward()
        self.assertTrue((wants.grad[0] < 0).sum() == 1 and not wants.grad[1].any())


if __name__ == "__main__":
    unittest.main()
