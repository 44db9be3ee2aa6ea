// Run onnxruntime-web (WebAssembly) on the files of bench_deploy.py: one table row for each.
//
//     npm install onnxruntime-web && node bench_deploy_web.mjs OUT     (in a folder with node_modules)

import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { join } from "node:path";

const require = createRequire(join(process.cwd(), "package.json"));
const ort = require("onnxruntime-web");
const { version } = JSON.parse(readFileSync(join(process.cwd(), "node_modules/onnxruntime-web/package.json")));
ort.env.wasm.numThreads = 1;
const folder = process.argv[2];

/** Read a C-ordered .npy file: its shape and the bytes of its numbers. */
function npy(name) {
  const bytes = readFileSync(join(folder, name));
  const length = bytes.readUInt16LE(8);
  const header = bytes.toString("latin1", 10, 10 + length);
  const shape = header.match(/\(([^)]*)\)/)[1].split(",").filter((s) => s.trim()).map(Number);
  return { shape, data: bytes.subarray(10 + length) };
}

/** Convert (B, H, W, 3) bytes in BGR to (B, 3, H, W) float32, in RGB where `rgb` is set. */
function planes({ shape: [b, h, w, c], data }, count, rgb) {
  const out = new Float32Array(count * c * h * w);
  for (let n = 0; n < count; n++)
    for (let k = 0; k < c; k++)
      for (let p = 0; p < h * w; p++)
        out[(n * c + k) * h * w + p] = data[(n * h * w + p) * c + (rgb ? c - 1 - k : k)];
  return new ort.Tensor("float32", out, [count, c, h, w]);
}

const crops = npy("crops.npy");
for (const name of ["nhwc", "nchw", "rgb", "join", "one", "opset20", "nchw-int8"]) {
  const stored = npy(name === "join" ? "wanted-join.npy" : "wanted.npy");
  const wanted = new Float32Array(new Uint8Array(stored.data).buffer);
  const cells = [];
  for (const count of [1, crops.shape[0]]) {
    try {
      const session = await ort.InferenceSession.create(readFileSync(join(folder, `${name}.onnx`)));
      const [, ...size] = crops.shape;
      const bytes = new Uint8Array(crops.data.subarray(0, count * size.reduce((a, b) => a * b)));
      const images = name === "nhwc" ? new ort.Tensor("uint8", bytes, [count, ...size]) : planes(crops, count, name === "rgb");
      const { embedding } = await session.run({ images });
      const largest = wanted.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
      const worst = embedding.data.reduce((a, v, k) => Math.max(a, Math.abs(v - wanted[k])), 0) / largest;
      cells.push(worst.toExponential(0));
    } catch (error) {
      cells.push(`refused: ${String(error.message).slice(0, 90)}`);
    }
  }
  console.log(`| onnxruntime-web ${version} | ${name} | ${cells.join(" | ")} |`);
}
