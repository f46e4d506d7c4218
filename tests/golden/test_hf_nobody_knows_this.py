"""Tests of nobody/knows-this, written by rp 0.1.0.

Made by: rp generate --model nobody/knows-this
Family: unknown (confidence 0.00).
Hardware: the first of cuda, rocm, xpu, mps, cpu that works here.
Weights: the pretrained ones where they can be had, else a tiny random twin (RP_WEIGHTS).
Digest: 8374be38e5e9b7a0; once the file is edited, `rp generate` leaves it alone.
"""

import importlib.util
import sys
import unittest
from typing import Any

from resource_pool import get_global_resource_pool, measuring, preferences_from_environment
from resource_pool.weights import locate_weights

PACKAGES = ("torch", "transformers")
MODEL_NAME = "nobody/knows-this"
MODEL_FAMILY = "unknown"
MODEL_TYPE = None
AUTO_CLASS = "AutoModel"
HARDWARE_PREFERENCES = {"priority_list": ["cuda", "rocm", "xpu", "mps", "cpu"]}
CLEANUP_MINUTES = 0.1


@unittest.skipUnless(all(map(importlib.util.find_spec, PACKAGES)), f"needs {PACKAGES}")
class TestNobodyKnowsThis(unittest.TestCase):
    """nobody/knows-this, loaded once through the shared resource pool."""

    torch: Any
    transformers: Any
    weights: Any
    preferences: Any
    processor: Any = None

    @classmethod
    def setUpClass(cls) -> None:
        """Load the model and what prepares its inputs through the pool, once for all tests."""
        pool = get_global_resource_pool()
        cls.torch = pool.get_resource("torch", constructor=lambda: __import__("torch"))
        cls.transformers = pool.get_resource(
            "transformers", constructor=lambda: __import__("transformers")
        )
        cls.weights = locate_weights(MODEL_NAME, auto_class=AUTO_CLASS, model_type=MODEL_TYPE)
        cls.preferences = preferences_from_environment(HARDWARE_PREFERENCES)
        cls.load_model(cls.preferences)

    @classmethod
    def load_model(cls, preferences: dict[str, Any]) -> Any:
        """Return the pool's instance for these preferences, loading it the first time."""
        with measuring.reported(MODEL_NAME, preferences):
            return get_global_resource_pool().get_model(
                MODEL_FAMILY,
                MODEL_NAME,
                constructor=lambda: cls.transformers.AutoModel.from_pretrained(
                    cls.weights.path, use_safetensors=True, trust_remote_code=False
                ),
                hardware_preferences=preferences,
                variant=f"{AUTO_CLASS}-{cls.weights.kind}",
            )

    @property
    def model(self) -> Any:
        """The shared model: asked for anew each time, and loaded once."""
        return self.load_model(self.preferences)

    def run_model(self, inputs: dict[str, Any], model: Any = None) -> Any:
        """Return the model's outputs for inputs, put on its device and in its dtype."""
        model = model or self.model
        with measuring.reported(MODEL_NAME, self.preferences), self.torch.no_grad():
            return model(**measuring.placed(inputs, model))

    def assert_close(self, found: Any, expected: Any, why: str, **how: Any) -> None:
        """Compare outputs by name; the limit is a share of the largest expected value."""
        self.assertEqual(measuring.differing(found, expected, self.model, **how), {}, why)

    def make_inputs(self, batch: int = 2) -> dict[str, Any]:
        """Make the first rows of a batch of what this model takes, by its signature and config."""
        return measuring.example_inputs(self.model, batch=batch)

    def test_device_precision_and_weights(self) -> None:
        """The model is where the pool says, in the dtype asked for, with these weights."""
        model, told = self.model, measuring.told_of(self.model)
        self.assertEqual(measuring.computes_on(model), told["device"])
        wanted = measuring.wanted_dtype(MODEL_FAMILY, MODEL_NAME, self.preferences, self.weights)
        self.assertEqual(measuring.precision_of(model), wanted)
        self.assertIn(told["weights"], (self.weights.kind, "unknown"))

    def test_forward_is_as_predicted(self) -> None:
        """Shapes, dtypes and peak memory are what the config alone lets expect."""
        expected = measuring.predicted_forward(self.model, self.make_inputs())
        forward = measuring.measured_forward(self.model, self.make_inputs())
        measuring.record_use(self.model, self.weights, forward)
        self.assertEqual(forward.layout, expected.layout)
        self.assertLessEqual(forward.computed_in, expected.computed_in)
        self.assertLessEqual(forward.peak_bytes, expected.limit_bytes(self.model.device))

    def test_output_is_finite(self) -> None:
        """No output holds an infinity or a value that is not a number."""
        self.assertEqual(measuring.not_finite(self.run_model(self.make_inputs())), [])

    def test_no_input_is_ignored(self) -> None:
        """Where two rows exchange an input, or the end of one, the output changes."""
        inputs = self.make_inputs()
        before = self.run_model(inputs)
        for name, others in measuring.exchanged(inputs):
            same = measuring.identical(self.run_model(others), before)
            self.assertFalse(same, f"{name} is ignored")

    def test_running_again_changes_nothing(self) -> None:
        """Two runs give the same numbers, and leave model and inputs as they were."""
        inputs, model = self.make_inputs(), self.model
        state = measuring.state_of(model)
        first, second = self.run_model(inputs, model), self.run_model(inputs, model)
        self.assert_close(second, first, "the second run changes", repeated=True)
        self.assert_close(inputs, self.make_inputs(), "a run changes", repeated=True)
        self.assertEqual(measuring.state_of(model), state)
        self.assertFalse(model.training)

    def test_a_row_is_the_same_alone_and_in_a_batch(self) -> None:
        """The first row gives the same numbers alone as with others, and with padding."""
        together = self.run_model(self.make_inputs())
        alone = self.run_model(self.make_inputs(batch=1))
        self.assert_close(*measuring.first_rows(together, alone), "the batch changes")

    def test_the_order_of_the_rows_does_not_matter(self) -> None:
        """A batch in the opposite order gives the same rows in the opposite order."""
        inputs = self.make_inputs()
        backwards = self.run_model(measuring.reversed_rows(inputs))
        rows = measuring.mirrored(backwards, self.run_model(inputs))
        self.assert_close(*rows, "the order of the rows changes")

    def test_saving_and_loading_changes_nothing(self) -> None:
        """What was saved holds every weight, and gives the same outputs."""
        model, before = self.model, self.run_model(self.make_inputs())
        with measuring.scratch_folder(model) as folder:
            model.save_pretrained(folder)
            again, told = self.transformers.AutoModel.from_pretrained(
                folder, dtype=model.dtype, output_loading_info=True
            )
            self.assertEqual(list(told["missing_keys"]), [], "not saved")
            self.assertEqual(measuring.weights_of(again), measuring.weights_of(model))
            after = self.run_model(self.make_inputs(), again.to(model.device))
        self.assert_close(after, before, "saving changes", repeated=measuring.in_torch(model))

    @measuring.also_on("cuda", "rocm", "xpu", "mps")
    def test_agrees_with_cpu_float32(self, elsewhere: dict[str, Any] | None) -> None:
        """The chosen hardware, and each other that is here, gives what the CPU gives."""
        measuring.need_engine(elsewhere, MODEL_FAMILY, MODEL_TYPE, self.weights)
        model = self.load_model(elsewhere or self.preferences)
        if (measuring.computes_on(model), model.dtype) == ("cpu", self.torch.float32):
            self.skipTest("this is the CPU in float32, the reference itself")
        reference = self.load_model({"device": "cpu", "precision": "fp32"})
        found, expected = (self.run_model(self.make_inputs(), one) for one in (model, reference))
        self.assertEqual(measuring.differing(found, expected, model), {})

    def test_output_has_numbers(self) -> None:
        """The model returns at least one tensor."""
        outputs = measuring.tensors(self.run_model(self.make_inputs()))
        self.assertTrue(outputs, "the model returned no tensor")

    def test_padding_does_not_change_a_row(self) -> None:
        """A text gives the same numbers with tokens behind it that the mask covers."""
        inputs = self.make_inputs(batch=1)
        longer = self.run_model(measuring.padded(inputs, 3, self.model))
        rows = measuring.first_rows(longer, self.run_model(inputs), per_token=True)
        self.assert_close(*rows, "padding changes")

    @classmethod
    def tearDownClass(cls) -> None:
        """Say what ran where, and let the pool drop what nobody uses."""
        measuring.print_summary(cls.weights)
        cls.processor = None
        get_global_resource_pool().cleanup_unused_resources(max_age_minutes=CLEANUP_MINUTES)


def main() -> int:
    """Run the tests of this file; return 0 where all passed, else 1."""
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(TestNobodyKnowsThis)
    return int(not unittest.TextTestRunner(verbosity=2).run(suite).wasSuccessful())


if __name__ == "__main__":
    sys.exit(main())
