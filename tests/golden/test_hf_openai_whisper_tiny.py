"""Tests of openai/whisper-tiny, written by rp 0.1.0.

Family: audio / speech_recognition (confidence 0.97).
Hardware: the first of cuda, rocm, mps, cpu that works here.
Weights: the pretrained ones where they can be had, else a tiny random twin (RP_WEIGHTS).
Written again by `rp generate`, which overwrites changes made by hand.
"""

import importlib.util
import logging
import sys
import unittest

from resource_pool import (
    DeviceUnavailableError,
    get_global_resource_pool,
    preferences_from_environment,
    saved_error_report,
)
from resource_pool.measuring import readable_gib, tolerance
from resource_pool.weights import locate_weights

MODEL_NAME = "openai/whisper-tiny"
MODEL_FAMILY = "audio"
MODEL_TYPE = "whisper"
HARDWARE_PREFERENCES = {"priority_list": ["cuda", "rocm", "mps", "cpu"]}
CLEANUP_MINUTES = 0.1
PITCHES = (220.0, 660.0)  # in Hz, one second each

logger = logging.getLogger(__name__)


@unittest.skipUnless(
    importlib.util.find_spec("torch") and importlib.util.find_spec("transformers"),
    "needs torch and transformers",
)
class TestOpenaiWhisperTiny(unittest.TestCase):
    """openai/whisper-tiny, loaded once through the shared resource pool."""

    @classmethod
    def setUpClass(cls):
        """Load the model and its processor through the pool, once for all tests."""
        pool = get_global_resource_pool()
        cls.torch = pool.get_resource("torch", constructor=lambda: __import__("torch"))
        cls.transformers = pool.get_resource(
            "transformers", constructor=lambda: __import__("transformers")
        )
        cls.weights = locate_weights(
            MODEL_NAME, auto_class="AutoModelForSpeechSeq2Seq", model_type=MODEL_TYPE
        )
        cls.preferences = preferences_from_environment(HARDWARE_PREFERENCES)
        parameter = next(cls.load_model(cls.preferences).parameters())
        cls.device, cls.dtype = parameter.device, parameter.dtype
        cls.processor = pool.get_tokenizer(
            MODEL_FAMILY,
            MODEL_NAME,
            constructor=lambda: cls.transformers.AutoFeatureExtractor.from_pretrained(
                cls.weights.path, trust_remote_code=False
            ),
            variant=f"AutoFeatureExtractor-{cls.weights.kind}",
        )
        logger.info(
            "%s: %s, on %s in %s", MODEL_NAME, cls.weights, cls.device, cls.dtype
        )

    @classmethod
    def load_model(cls, preferences):
        """Return the pool's instance for these preferences, loading it the first time."""
        pool = get_global_resource_pool()
        try:
            with saved_error_report(pool, MODEL_NAME, preferences):
                return pool.get_model(
                    MODEL_FAMILY,
                    MODEL_NAME,
                    constructor=lambda: (
                        cls.transformers.AutoModelForSpeechSeq2Seq.from_pretrained(
                            cls.weights.path,
                            use_safetensors=True,
                            trust_remote_code=False,
                        )
                    ),
                    hardware_preferences=preferences,
                    variant=f"AutoModelForSpeechSeq2Seq-{cls.weights.kind}",
                )
        except DeviceUnavailableError as error:
            raise unittest.SkipTest(str(error)) from error

    @property
    def model(self):
        """The shared model: asked for anew each time, and loaded once."""
        return self.load_model(self.preferences)

    def run_model(self, inputs, model=None):
        """Return the model's outputs for inputs that are on its device and in its dtype."""
        model = model or self.model
        parameter = next(model.parameters())
        placed = {
            name: value.to(parameter.device, parameter.dtype)
            if value.is_floating_point()
            else value.to(parameter.device)
            for name, value in inputs.items()
        }
        pool = get_global_resource_pool()
        with (
            saved_error_report(pool, MODEL_NAME, self.preferences),
            self.torch.no_grad(),
        ):
            return model(**placed)

    def assert_close(self, actual, expected, message):
        """Compare two tensors; the limit is a share of the largest expected value."""
        actual, expected = actual.float().cpu(), expected.float().cpu()
        self.assertEqual(actual.shape, expected.shape, message)
        limit = tolerance(self.dtype) * float(expected.abs().max())
        self.assertLessEqual(float((actual - expected).abs().max()), limit, message)

    def make_inputs(self, pitches=PITCHES):
        """Turn one second of each tone into the features that the model takes."""
        rate = self.processor.sampling_rate
        tones = self.make_tones(rate, pitches)
        inputs = self.processor(tones, sampling_rate=rate, return_tensors="pt")
        start = self.model.generation_config.decoder_start_token_id
        inputs["decoder_input_ids"] = self.torch.full((len(tones), 1), start)
        return inputs

    def make_tones(self, rate, pitches):
        """Return one second of each pitch, as arrays of `rate` samples."""
        time = self.torch.arange(rate) / rate
        return [
            self.torch.sin(2 * self.torch.pi * pitch * time).numpy()
            for pitch in pitches
        ]

    def main_output(self, outputs):
        """Return the first output: logits of a head, or the hidden states of a bare model."""
        return outputs[0]

    def test_device_and_weights(self):
        """The model is where the pool says that it put it, with the weights that were found."""
        pool, model = get_global_resource_pool(), self.model
        key = next(key for key, cached in pool.models.items() if cached is model)
        facts = pool.get_stats()["models"][key]
        devices = {str(parameter.device) for parameter in model.parameters()}
        self.assertEqual("+".join(sorted(devices)), facts["device"])
        self.assertIn(str(self.dtype).removeprefix("torch."), facts["dtype"].split("+"))
        if self.weights.kind == "tiny":
            self.assertEqual(facts["weights"], "tiny")
        else:
            self.assertNotIn(facts["weights"], ("tiny", "random"))

    def test_output_is_finite(self):
        """No output holds an infinity or a value that is not a number."""
        output = self.main_output(self.run_model(self.make_inputs()))
        self.assertTrue(
            bool(self.torch.isfinite(output).all()), "the output is not finite"
        )

    def test_output_depends_on_input(self):
        """The rows of a batch of different inputs differ."""
        output = self.main_output(self.run_model(self.make_inputs()))
        self.assertFalse(
            self.torch.equal(output[0], output[1]), "the output ignores the input"
        )

    def test_same_input_gives_same_output(self):
        """Two runs on the same input give the same numbers."""
        inputs = self.make_inputs()
        first = self.main_output(self.run_model(inputs))
        second = self.main_output(self.run_model(inputs))
        self.assert_close(second, first, "the second run differs")

    def test_agrees_with_cpu_float32(self):
        """The chosen device and precision give what the CPU gives in float32."""
        if self.device.type == "cpu" and self.dtype == self.torch.float32:
            self.skipTest("this is the CPU in float32, the reference itself")
        needed = 4 * sum(parameter.numel() for parameter in self.model.parameters())
        memory = get_global_resource_pool().get_stats()["system_memory"]
        free = memory.get("available_mb", float("inf")) * 2**20
        if needed > free:
            self.skipTest(f"needs {readable_gib(needed)}, {readable_gib(free)} free")
        reference = self.load_model({"device": "cpu", "precision": "fp32"})
        inputs = self.make_inputs()
        self.assert_close(
            self.main_output(self.run_model(inputs)),
            self.main_output(self.run_model(inputs, reference)),
            f"{self.device} in {self.dtype} differs from the CPU in float32",
        )

    def test_output_shape_and_dtype(self):
        """One row per sound, one score per token, in the model's dtype."""
        output = self.main_output(self.run_model(self.make_inputs()))
        self.assertEqual(output.shape[0], len(PITCHES))
        self.assertEqual(output.shape[-1], self.model.config.vocab_size)
        self.assertEqual(output.dtype, self.dtype)

    def test_batch_does_not_change_a_row(self):
        """A sound gives the same numbers alone as in a batch."""
        together = self.main_output(self.run_model(self.make_inputs()))
        for row, pitch in enumerate(PITCHES):
            alone = self.main_output(self.run_model(self.make_inputs([pitch])))[0]
            self.assert_close(together[row], alone, f"row {row} differs")

    def test_cached_decoding_agrees_with_one_forward(self):
        """A step with the cache gives the logits of one forward over all decoder tokens."""
        inputs = self.make_inputs()
        start = inputs["decoder_input_ids"]
        inputs["decoder_input_ids"] = self.torch.cat([start, start], dim=1)
        whole = self.run_model(inputs)
        inputs["decoder_input_ids"] = start
        cache = self.run_model(inputs).past_key_values
        with self.torch.no_grad():
            step = self.model(
                encoder_outputs=(whole.encoder_last_hidden_state,),
                decoder_input_ids=start.to(self.device),
                past_key_values=cache,
            )
        self.assert_close(
            step.logits[:, -1], whole.logits[:, -1], "the cache changes logits"
        )

    @classmethod
    def tearDownClass(cls):
        """Say what ran where, and let the pool drop what nobody uses."""
        pool = get_global_resource_pool()
        stats = pool.get_stats()
        print()
        print(f"Weights: {cls.weights}")
        for key, facts in stats["models"].items():
            print(
                f"Model {key}: {facts['memory_mb']:.1f} MB, device: {facts['device']}, "
                f"dtype: {facts['dtype']}, weights: {facts['weights']}"
            )
        shown = (
            "hits",
            "misses",
            "cached_models",
            "memory_usage_mb",
            "low_memory_mode",
        )
        print("Resource pool stats:", {name: stats[name] for name in shown}, flush=True)
        cls.processor = None
        pool.cleanup_unused_resources(max_age_minutes=CLEANUP_MINUTES)


def main():
    """Run the tests of this file; return 0 where all passed, else 1."""
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(TestOpenaiWhisperTiny)
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    sys.exit(main())
