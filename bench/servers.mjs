/**
 * The servers under the contenders: an own PostgreSQL and an own Redis, on loopback, on free ports, with a password, in a
 * temporary directory that is removed afterwards. BENCH_DATABASE_URL and BENCH_REDIS_URL use running servers instead.
 */
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { query, redis } from "./lib/connect.mjs";
import { freePort, start, until } from "./lib/server-process.mjs";

const POSTGRES_SETTINGS = { shared_buffers: "512MB", fsync: "on", synchronous_commit: "on" };
const REDIS_SETTINGS = { appendonly: "yes", appendfsync: "everysec", save: '""' };

/** Where `initdb` and `postgres` are: BENCH_PG_BIN, else the newest of Debian's directories, else pg_config's. */
function postgresBin() {
  if (process.env.BENCH_PG_BIN) return process.env.BENCH_PG_BIN;
  const root = "/usr/lib/postgresql";
  const versions = existsSync(root) ? readdirSync(root).sort((a, b) => Number(b) - Number(a)) : [];
  const found = versions.map((version) => join(root, version, "bin")).find((dir) => existsSync(join(dir, "initdb")));
  if (found) return found;
  try {
    return execFileSync("pg_config", ["--bindir"], { encoding: "utf8" }).trim();
  } catch {
    throw new Error("no PostgreSQL found: install the package `postgresql`, or set BENCH_PG_BIN or BENCH_DATABASE_URL");
  }
}

/** PostgreSQL refuses to run as root: then it runs as the system user `postgres`. */
function unprivileged() {
  if (process.getuid() !== 0) return {};
  const entry = readFileSync("/etc/passwd", "utf8").match(/^postgres:[^:]*:(\d+):(\d+):/m);
  if (!entry) throw new Error("running as root, and there is no system user `postgres` to run PostgreSQL as");
  return { uid: Number(entry[1]), gid: Number(entry[2]) };
}

async function startPostgres(dir) {
  const bin = postgresBin();
  const user = unprivileged();
  const data = join(dir, "postgres");
  const secret = join(dir, "secret");
  const password = randomBytes(16).toString("hex");
  mkdirSync(data, { mode: 0o700 });
  writeFileSync(secret, password, { mode: 0o600 });
  if (user.uid) for (const path of [data, secret]) chownSync(path, user.uid, user.gid);
  const setup = [
    "-D",
    data,
    "-U",
    "bench",
    "-E",
    "UTF8",
    "--locale=C.UTF-8",
    "--auth=scram-sha-256",
    `--pwfile=${secret}`,
  ];
  execFileSync(join(bin, "initdb"), setup, { ...user, cwd: dir, stdio: ["ignore", "ignore", "pipe"] });
  rmSync(secret);
  const port = await freePort();
  const own = { ...POSTGRES_SETTINGS, port, listen_addresses: "127.0.0.1", unix_socket_directories: "" };
  const args = ["-D", data, ...Object.entries(own).flatMap(([name, value]) => ["-c", `${name}=${value}`])];
  const server = start(join(bin, "postgres"), args, { ...user, cwd: dir, signal: "SIGINT" });
  const url = `postgresql://bench:${password}@127.0.0.1:${port}/postgres`;
  await until("PostgreSQL", server.ended, () => query(url, "select 1"));
  return { url, pid: server.pid, stop: server.stop };
}

async function startRedis(dir) {
  const data = join(dir, "redis");
  const password = randomBytes(16).toString("hex");
  mkdirSync(data, { mode: 0o700 });
  const port = await freePort();
  const own = {
    ...REDIS_SETTINGS,
    port,
    bind: "127.0.0.1",
    dir: data,
    requirepass: password,
    "maxmemory-policy": "noeviction",
  };
  const input = Object.entries(own)
    .map(([name, value]) => `${name} ${value}\n`)
    .join("");
  const server = start("redis-server", ["-"], { cwd: data, input, signal: "SIGTERM" });
  const url = `redis://:${password}@127.0.0.1:${port}/0`;
  await until("redis-server (install the package `redis-server`, or set BENCH_REDIS_URL)", server.ended, () =>
    redis(url, (r) => r.ping()),
  );
  return { url, pid: server.pid, stop: server.stop };
}

const isLocal = (url) => ["127.0.0.1", "localhost", "[::1]", ""].includes(new URL(url).hostname);

/** The process that all backends descend from, when a given server runs on this machine: its CPU time can be read. */
async function findPostmaster(url) {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    const { rows } = await client.query("select pg_backend_pid() as pid");
    const status = isLocal(url) ? readFileSync(`/proc/${rows[0].pid}/status`, "latin1") : "";
    return status.startsWith("Name:\tpostgres") ? Number(status.match(/PPid:\s+(\d+)/)[1]) : null;
  } catch {
    return null;
  } finally {
    await client.end();
  }
}

async function findRedis(url) {
  const info = await redis(url, (client) => client.info("server"));
  const pid = Number(info.match(/process_id:(\d+)/)?.[1]);
  return isLocal(url) && existsSync(`/proc/${pid}`) ? pid : null;
}

/** `pid` is null for a server whose processes cannot be seen from here. */
export async function startServers() {
  const dir = mkdtempSync(join(process.env.BENCH_DATA_DIR ?? tmpdir(), "millrace-bench-"));
  chmodSync(dir, 0o711);
  const started = [];
  const stop = async () => {
    for (const server of started.splice(0)) await server.stop();
    rmSync(dir, { recursive: true, force: true });
  };
  try {
    const given = { postgres: process.env.BENCH_DATABASE_URL, redis: process.env.BENCH_REDIS_URL };
    const keep = (server) => (server.stop && started.push(server), server);
    const postgres = given.postgres
      ? { url: given.postgres, pid: await findPostmaster(given.postgres), given: true }
      : keep(await startPostgres(dir));
    const redisServer = given.redis
      ? { url: given.redis, pid: await findRedis(given.redis), given: true }
      : keep(await startRedis(dir));
    return { postgres, redis: redisServer, dir, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Leaves a given server as it was found, but for what was in the Redis database. */
export async function dropDatabases({ postgres }) {
  if (!postgres.given) return;
  const names = await query(postgres.url, "select datname from pg_database where datname like 'bench\\_%'");
  for (const { datname } of names) await query(postgres.url, `drop database if exists ${datname} with (force)`);
}
