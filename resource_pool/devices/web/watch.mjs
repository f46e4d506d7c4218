// Watches a page's devices from outside the libraries that use them. To be imported first.

// What really reached a device, counted where it leaves the library.
export const counts = { dispatches: 0 };
const counted = (type, name) => {
  const real = globalThis[type]?.prototype[name];
  if (real) globalThis[type].prototype[name] = function (...args) {
    counts.dispatches += 1;
    return real.apply(this, args);
  };
};
counted("GPUComputePassEncoder", "dispatchWorkgroups");
counted("GPUComputePassEncoder", "dispatchWorkgroupsIndirect");
counted("MLContext", "dispatch");

// A lost device answers nothing: whoever waits must be told.
let lose;
export const loss = new Promise((_, reject) => { lose = reject; });
loss.catch(() => {});
const watched = (type, name, what) => {
  const real = globalThis[type]?.prototype[name];
  if (real) globalThis[type].prototype[name] = async function (...args) {
    const made = await real.apply(this, args);
    made.lost.then((info) => {
      if (info?.reason !== "destroyed") lose(new Error(`the ${what} was lost: ${info?.message}`));
    });
    return made;
  };
};
watched("GPUAdapter", "requestDevice", "GPU device");
watched("ML", "createContext", "WebNN context");
