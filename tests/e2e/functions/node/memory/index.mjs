// Takes memory outside V8's heap, and touches it, until the kernel ends the process.
export async function handler() {
  console.log("taking all the memory there is");
  const kept = [];
  for (;;) {
    kept.push(Buffer.alloc(1 << 20, 1));
    if (kept.length % 16 === 0) await new Promise(setImmediate);
  }
}
