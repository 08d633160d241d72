/** What the figures were measured on and with. */
import { execFileSync } from "node:child_process";
import { closeSync, fdatasyncSync, openSync, readFileSync, unlinkSync, writeSync } from "node:fs";
import os from "node:os";
import { join } from "node:path";
import { CONTENDERS } from "./contenders.mjs";
import { median } from "./numbers.mjs";
import { query, redis } from "./connect.mjs";

const bench = new URL("../", import.meta.url).pathname;

const attempt = (read) => {
  try {
    return read();
  } catch {
    return null;
  }
};

const run = (command, ...args) =>
  attempt(() =>
    execFileSync(command, args, { encoding: "utf8", cwd: bench, stdio: ["ignore", "pipe", "ignore"] }).trim(),
  );

const version = (folder) =>
  attempt(() => JSON.parse(readFileSync(join(bench, folder, "package.json"), "utf8")).version);

/** Median time to make 8 kB durable where the servers keep their data, in microseconds. */
function fdatasyncMicros(dir) {
  const path = join(dir, "fsync-probe");
  const file = openSync(path, "w");
  const block = Buffer.alloc(8192);
  const times = Array.from({ length: 300 }, () => {
    writeSync(file, block, 0, block.length, 0);
    const from = performance.now();
    fdatasyncSync(file);
    return (performance.now() - from) * 1000;
  });
  closeSync(file);
  unlinkSync(path);
  return Math.round(median(times));
}

async function postgresSettings(url) {
  const names = [
    "shared_buffers",
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_level",
    "max_wal_size",
    "autovacuum",
  ];
  const rows = await query(url, "select name, current_setting(name) as value from unnest($1::text[]) name", [names]);
  return Object.fromEntries(rows.map((row) => [row.name, row.value]));
}

async function redisSettings(url) {
  const names = ["appendonly", "appendfsync", "save"];
  return redis(url, async (client) => {
    const pairs = await Promise.all(names.map((name) => client.config("GET", name)));
    return Object.fromEntries(pairs);
  }).catch(() => null);
}

function versions(postgres, redisInfo) {
  const peers = Object.values(CONTENDERS).flatMap((contender) => contender.package ?? []);
  const commit = run("git", "rev-parse", "--short=10", "HEAD");
  const changed = run("git", "status", "--porcelain", "--untracked-files=no", "--", "../src", "../migrations");
  return {
    millrace: [version(".."), commit && `commit ${commit}`, changed && "with changes"].filter(Boolean).join(", "),
    ...Object.fromEntries([...peers, "ioredis", "pg"].map((name) => [name, version(join("node_modules", name))])),
    node: process.versions.node,
    postgresql: postgres,
    redis: redisInfo.match(/redis_version:(\S+)/)?.[1],
  };
}

export async function describeMachine(servers) {
  const [{ server_version: postgres }] = await query(servers.postgres.url, "show server_version");
  const release = attempt(() => readFileSync("/etc/os-release", "utf8").match(/PRETTY_NAME="(.*)"/)[1]);
  return {
    cpu: os.cpus()[0].model.trim(),
    cores: os.cpus().length,
    memoryGiB: Math.round(os.totalmem() / 2 ** 30),
    system: [release, os.release()].filter(Boolean).join(", kernel "),
    filesystem: run("df", "--output=fstype", servers.dir)?.split("\n").at(-1),
    fdatasyncMicros: fdatasyncMicros(servers.dir),
    versions: versions(postgres.split(" ")[0], await redis(servers.redis.url, (client) => client.info("server"))),
    postgres: { own: !servers.postgres.given, ...(await postgresSettings(servers.postgres.url)) },
    redis: { own: !servers.redis.given, ...(await redisSettings(servers.redis.url)) },
  };
}

/** "2026-11-22-amd-epyc-2-cores" */
export function nameMachine(date, machine) {
  const cpu = machine.cpu.replace(/\(.*?\)|@.*|processor|cpu/gi, " ");
  const slug = cpu
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-")
    .replace(/^-|-$/g, "");
  return `${date.toISOString().slice(0, 10)}-${slug}-${machine.cores}-cores`;
}
