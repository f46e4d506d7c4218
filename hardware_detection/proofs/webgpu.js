// Multiplies two matrices in a WGSL compute shader, in each number format of the adapter.
// Returns {devices: [{name, results, facts}], facts: {api}} for hardware_detection.answers.
async ({ size, left, right }) => {
  const nothing = (facts) => ({ devices: [], facts });
  if (!navigator.gpu) return nothing({ api: false });
  const adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) return nothing({ api: true });

  const features = [...adapter.features].sort();
  const limits = {};
  for (const name in adapter.limits) {
    const value = adapter.limits[name];
    if (typeof value === "number") limits[name] = value;
  }
  const { vendor, architecture, device, description } = adapter.info;
  // The attribute moved from the adapter to its info in 2025.
  const fallback = adapter.info.isFallbackAdapter ?? adapter.isFallbackAdapter ?? null;

  const shader = (type) => `
    ${type === "f16" ? "enable f16;" : ""}
    @group(0) @binding(0) var<storage, read> left: array<f32>;
    @group(0) @binding(1) var<storage, read> right: array<f32>;
    @group(0) @binding(2) var<storage, read_write> product: array<f32>;
    @compute @workgroup_size(8, 8)
    fn main(@builtin(global_invocation_id) at: vec3u) {
      var sum = ${type}(0);
      for (var k = 0u; k < ${size}u; k++) {
        sum += ${type}(left[at.y * ${size}u + k]) * ${type}(right[k * ${size}u + at.x]);
      }
      product[at.y * ${size}u + at.x] = f32(sum);
    }`;

  const multiply = async (gpu, type) => {
    gpu.pushErrorScope("validation");
    const bytes = size * size * 4;
    const { STORAGE, COPY_DST, COPY_SRC, MAP_READ } = GPUBufferUsage;
    const buffer = (usage) => gpu.createBuffer({ size: bytes, usage });
    const factors = [left, right].map((values) => {
      const made = buffer(STORAGE | COPY_DST);
      gpu.queue.writeBuffer(made, 0, new Float32Array(values));
      return made;
    });
    const product = buffer(STORAGE | COPY_SRC);
    const readable = buffer(MAP_READ | COPY_DST);
    const module = gpu.createShaderModule({ code: shader(type) });
    const pipeline = gpu.createComputePipeline({ layout: "auto", compute: { module, entryPoint: "main" } });
    const entries = [...factors, product].map((made, binding) => ({ binding, resource: { buffer: made } }));
    const encoder = gpu.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, gpu.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }));
    pass.dispatchWorkgroups(size / 8, size / 8);
    pass.end();
    encoder.copyBufferToBuffer(product, 0, readable, 0, bytes);
    gpu.queue.submit([encoder.finish()]);
    const error = await gpu.popErrorScope();
    if (error) throw new Error(error.message);
    await readable.mapAsync(GPUMapMode.READ);
    return [...new Float32Array(readable.getMappedRange())];
  };

  const results = {};
  const hasF16 = features.includes("shader-f16");
  try {
    const gpu = await adapter.requestDevice({ requiredFeatures: hasF16 ? ["shader-f16"] : [] });
    for (const [name, type] of [["fp32", "f32"], ...(hasF16 ? [["fp16", "f16"]] : [])]) {
      try {
        results[name] = await multiply(gpu, type);
      } catch (error) {
        results[name] = String(error).split("\n")[0];
      }
    }
  } catch (error) {
    results.fp32 = String(error).split("\n")[0];
  }
  const name = description || [vendor, architecture, device].filter(Boolean).join(" ") || "unknown";
  const facts = { vendor, architecture, is_fallback_adapter: fallback, features, limits };
  return { devices: [{ name, results, facts }], facts: { api: true } };
}
