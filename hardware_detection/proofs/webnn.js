// Multiplies two matrices in a WebNN graph, in each number format that the context takes.
// Returns {devices: [{name, results, facts}], facts: {api, contexts}} for hardware_detection.answers;
// the device's fact `context` is the wish with which the context that computed was made.
async ({ size, left, right }) => {
  if (!navigator.ml) return { devices: [], facts: { api: false } };
  const line = (error) => String(error).split("\n")[0];

  // "gpu" and "npu" are wishes: a context for them is also made where there is neither.
  const contexts = {};
  let context = null;
  let wish = null;
  for (const deviceType of ["npu", "gpu", "cpu"]) {
    try {
      context = await navigator.ml.createContext({ deviceType });
      wish = deviceType;
      contexts[deviceType] = "accepted";
    } catch (error) {
      contexts[deviceType] = line(error);
    }
  }
  if (!context) return { devices: [], facts: { api: true, contexts } };

  const multiply = async (dataType, Values) => {
    const shape = [size, size];
    const description = { dataType, shape, dimensions: shape };
    const builder = new MLGraphBuilder(context);
    const product = builder.matmul(
      builder.input("left", description),
      builder.constant(description, new Values(right)),
    );
    const graph = await builder.build({ product });
    const input = await context.createTensor({ ...description, writable: true });
    const output = await context.createTensor({ ...description, readable: true });
    context.writeTensor(input, new Values(left));
    context.dispatch(graph, { left: input }, { product: output });
    return [...new Values(await context.readTensor(output))];
  };

  const results = {};
  const formats = { fp32: ["float32", Float32Array] };
  if (typeof Float16Array !== "undefined") formats.fp16 = ["float16", Float16Array];
  for (const [name, [dataType, Values]] of Object.entries(formats)) {
    try {
      results[name] = await multiply(dataType, Values);
    } catch (error) {
      results[name] = line(error);
    }
  }
  const supported = context.opSupportLimits();
  const operations = Object.keys(supported).filter((name) => typeof supported[name] === "object");
  const limits = {
    max_tensor_bytes: supported.maxTensorByteLength ?? null,
    preferred_input_layout: supported.preferredInputLayout ?? null,
    operations: operations.sort(),
  };
  return { devices: [{ name: "WebNN", results, facts: { context: wish, limits } }], facts: { api: true, contexts } };
}
