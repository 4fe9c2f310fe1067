// What zarrita reads of a store, for benchmarks/readers.py: every array of the parts of attention, by type, shape and hash.
// Float16Array is JavaScript's own from 2025 on; before, a package stands in.
import { createHash } from "node:crypto";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { Float16Array as Halves } from "@petamoriken/float16";
import { FileSystemStore } from "@zarrita/storage";

globalThis.Float16Array ??= Halves;
const zarr = await import("zarrita"); // looks for Float16Array when it is loaded

const below = (folder) => readdirSync(folder).sort().map((name) => [name, join(folder, name)]);
const described = async (folder) => {
  try {
    const array = await zarr.open.v3(zarr.root(new FileSystemStore(folder)), { kind: "array" });
    const { data, shape } = await zarr.get(array);
    const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
    return [array.dtype, shape, createHash("sha256").update(bytes).digest("hex")];
  } catch (error) {
    return String(error);
  }
};

const found = {};
for (const [, space] of below(join(process.argv[2], "attention")))
  for (const [part, folder] of below(join(space, "parts")))
    for (const [name, path] of below(folder))
      if (existsSync(join(path, "zarr.json"))) found[`${part}/${name}`] = await described(path);
console.log(JSON.stringify({ attention: found }));
