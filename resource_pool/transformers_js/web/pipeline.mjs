// Runs the pipeline that the page asks for, for the Python process that has opened the page.
// The model comes from this server, and from nowhere else.
import { counts, loss } from "./watch.mjs";
import { env, pipeline, RawImage } from "@huggingface/transformers";

const asked = JSON.parse(document.getElementById("asked").textContent);
env.allowRemoteModels = false;
env.allowLocalModels = true;
env.localModelPath = new URL("models/", document.baseURI).pathname;
env.useBrowserCache = false;
env.useWasmCache = false;
env.backends.onnx.wasm.wasmPaths = {
  wasm: new URL("ort-wasm-simd-threaded.asyncify.wasm", document.baseURI).href,
};
env.backends.onnx.wasm.numThreads = 1;
env.backends.onnx.logLevel = "error";

let loaded;
async function load() {
  const started = performance.now();
  const options = { device: asked.device, dtype: asked.dtype };
  loaded = await Promise.race([pipeline(asked.task, "model", options), loss]);
  return { version: env.version, load_ms: performance.now() - started };
}

async function run({ texts, image }) {
  const input = texts ?? new RawImage(
    new Uint8ClampedArray(image.pixels), image.width, image.height, 3,
  );
  counts.dispatches = 0;
  const answer = await Promise.race([loaded(input, asked.options), loss]);
  // A tensor comes as its numbers, labels with their scores as they are.
  return { answer: answer.data ? [...answer.data] : answer, dispatches: counts.dispatches };
}

globalThis.rp = { load, run };
