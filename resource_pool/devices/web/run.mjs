// Runs ONNX models with onnxruntime-web for the Python process that has opened this page.
// Tensors come and go as one binary body each way, every tensor at a multiple of eight bytes.
import * as ort from "./ort.webgpu.bundle.min.mjs";
import { counts, loss } from "./watch.mjs";

const ARRAYS = {
  float32: Float32Array, float64: Float64Array, int64: BigInt64Array, int32: Int32Array,
  int16: Int16Array, int8: Int8Array, uint8: Uint8Array, bool: Uint8Array,
};
const sessions = new Map();

const aligned = (size) => Math.ceil(size / 8) * 8;
const timed = async (work) => {
  const started = performance.now();
  const value = await Promise.race([work(), loss]);
  return [value, performance.now() - started];
};

async function describe({ provider }) {
  if (provider === "webnn") {
    const limits = (await navigator.ml.createContext()).opSupportLimits();
    return { adapter: null, limits: { max_tensor_bytes: limits.maxTensorByteLength ?? null } };
  }
  const adapter = await navigator.gpu?.requestAdapter();
  if (!adapter) return { adapter: null, limits: {} };
  const { vendor, architecture, device, description } = adapter.info;
  const limits = {};
  for (const name of ["maxBufferSize", "maxStorageBufferBindingSize"]) {
    limits[name] = adapter.limits[name];
  }
  const emulated = adapter.info.isFallbackAdapter === true || /swiftshader/i.test(architecture);
  return { adapter: { vendor, architecture, device, description, emulated }, limits };
}

// What the engine logs while it loads: the only place where it says which node runs where.
const logged = async (work) => {
  const lines = [];
  const real = {};
  for (const name of ["debug", "info", "log", "warn", "error"]) {
    real[name] = console[name];
    console[name] = (...said) => lines.push(...said.join(" ").split("\n"));
  }
  try {
    return [await work(), lines.filter((line) => line.includes("VerifyEachNodeIsAssignedToAnEp"))];
  } finally {
    Object.assign(console, real);
  }
};

async function load({ release, session, model, provider, dimensions, verbose }) {
  for (const one of release) {
    await sessions.get(one)?.release();
    sessions.delete(one);
  }
  const wasm = new URL("ort-wasm-simd-threaded.asyncify.wasm", import.meta.url).href;
  ort.env.wasm.wasmPaths = { wasm };
  ort.env.wasm.numThreads = 1;
  ort.env.logLevel = verbose ? "verbose" : "error";
  const options = { executionProviders: [{ name: provider }] };
  if (verbose) options.logSeverityLevel = 0;
  if (dimensions) options.freeDimensionOverrides = dimensions;
  const create = () => timed(() => ort.InferenceSession.create(model, options));
  const [[made, ms], placements] = await logged(create);
  sessions.set(session, made);
  return { ms, placements };
}

async function run({ session, input, output, tensors }) {
  const body = await (await fetch(input)).arrayBuffer();
  const feeds = {};
  for (const { name, type, dims, offset, length } of tensors) {
    feeds[name] = new ort.Tensor(type, new ARRAYS[type](body, offset, length), dims);
  }
  const made = sessions.get(session);
  counts.dispatches = 0;
  const [answer, ms] = await timed(() => made.run(feeds));
  const results = made.outputNames.map((name) => answer[name]);
  const size = results.reduce((sum, one) => sum + aligned(one.data.byteLength), 0);
  const bytes = new Uint8Array(size);
  let offset = 0;
  const outputs = results.map(({ type, dims, data }) => {
    bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), offset);
    const told = { type, dims: [...dims], offset };
    offset += aligned(data.byteLength);
    return told;
  });
  const sent = await fetch(output, { method: "POST", body: bytes });
  if (!sent.ok) throw new Error(`the output could not be handed over (${sent.status})`);
  return { outputs, ms, dispatches: counts.dispatches };
}

globalThis.rp = { describe, load, run };
