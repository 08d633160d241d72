#!/usr/bin/env node
/** `npm run bench`: makes sure of the peers and of a Node that they accept (22), then runs main.mjs under it. */
import { spawn, spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

const here = import.meta.dirname;
const LEAST_NODE = 22;

const { dependencies } = JSON.parse(readFileSync(join(here, "package.json"), "utf8"));
if (!Object.keys(dependencies).every((name) => existsSync(join(here, "node_modules", name)))) {
  console.log("bench: installing the peers (npm ci) …");
  const done = spawnSync("npm", ["--prefix", here, "ci", "--no-audit", "--no-fund", "--loglevel=error"], {
    stdio: "inherit",
  });
  if (done.status !== 0) process.exit(done.status ?? 1);
}

/** The Node that came with the peers, else this one if it is new enough. */
function findNode() {
  const own = join(here, "node_modules", `node-${process.platform}-${process.arch}`, "bin", "node");
  if (existsSync(own)) return own;
  if (Number(process.versions.node.split(".")[0]) >= LEAST_NODE) return process.execPath;
  console.error(`bench: the peers need Node ${LEAST_NODE}, and there is none for ${process.platform}-${process.arch}`);
  return process.exit(1);
}

const child = spawn(findNode(), [join(here, "main.mjs"), ...process.argv.slice(2)], { stdio: "inherit" });
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => child.kill(signal));
child.on("exit", (code, signal) => process.exit(signal ? 1 : code));
