/** The API of a real `millrace up`: where it listens, whom it trusts, and how it stops. */
import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { backend } from "../support/database.ts";
import { type Place, cliPlace } from "./process.ts";

// Each test starts a process that opens a database, on a machine that may be busy.
vi.setConfig({ testTimeout: 120_000 });

let place: Place;
let app: string;
let headers: Record<string, string>;
beforeAll(async () => {
  place = await cliPlace();
  const token = place.env["MILLRACE_TOKEN"];
  headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
  app = await place.write(
    "app.ts",
    `import { existsSync } from "node:fs";
     import { setTimeout as pause } from "node:timers/promises";
     import { defineApp, task } from "millrace";
     const hold = task({ name: "hold", async run({ log }) {
       log.info({}, "hold begins");
       while (!existsSync("go")) await pause(20);
     } });
     export default defineApp({ tasks: [hold] });`,
  );
});
afterAll(() => place[Symbol.asyncDispose]());

/** Those given where all are free, else as many others that are. */
async function freePorts(wanted: readonly number[]): Promise<number[]> {
  const take = async (ports: readonly number[]): Promise<number[]> => {
    const servers = ports.map((port) => createServer().listen(port, "127.0.0.1"));
    const taken = await Promise.allSettled(servers.map((server) => once(server, "listening")));
    const found = servers.map((server) => (server.address() as AddressInfo | null)?.port ?? 0);
    for (const server of servers) server.close();
    return taken.every(({ status }) => status === "fulfilled") ? found : [];
  };
  const found = await take(wanted);
  return found.length > 0 ? found : take(wanted.map(() => 0));
}

test("the ports of all runbooks answer at once, and this machine is trusted where the database is embedded", async () => {
  const ports = await freePorts([3001, 3003, 4001, 9000]);
  await using up = place.with({ MILLRACE_PORTS: ports.join(",") }).start("up", "--app", app);
  await up.says(/worker started/);
  for (const port of ports) {
    const url = `http://127.0.0.1:${port}`;
    expect(await (await fetch(`${url}/livez`)).json()).toEqual({ status: "ok" });
    expect((await fetch(`${url}/jobs`)).status).toBe(backend === "pglite" ? 200 : 401);
  }
  up.kill("SIGTERM");
  expect((await up.ended).code).toBe(0);
});

test("where a public address is set, this machine is not trusted: strangers may come by a proxy on it", async () => {
  const env = { MILLRACE_PUBLIC_URL: "http://localhost:3003", API_TOKENS: "ci:viewer:0123456789abcdef" };
  await using up = place.with(env).start("up", "--app", app);
  const [url = ""] = /http:\S+/.exec(await up.says(/^open/)) ?? [];
  await up.says(/^try +export MILLRACE_TOKEN=/);
  expect((await fetch(`${url}/jobs`)).status).toBe(401);
  expect((await fetch(`${url}/jobs`, { headers: { "x-api-key": "0123456789abcdef" } })).status).toBe(200);
});

test("told to stop, it ends what only waits, says that it is not ready, and answers until its jobs have ended", async () => {
  await using up = place.start("up", "--app", app);
  const [url = ""] = /http:\S+/.exec(await up.says(/^open/)) ?? [];
  const enqueued = await fetch(`${url}/jobs`, {
    method: "POST",
    headers: { ...headers, "content-type": "application/json" },
    body: JSON.stringify({ task: "hold" }),
  });
  const { id } = (await enqueued.json()) as { id: string };
  await up.says(/hold begins/);
  const waiting = fetch(`${url}/jobs/${id}/wait?within=60s`, { headers });
  up.kill("SIGTERM");

  const refused = await waiting;
  expect([refused.status, refused.headers.get("retry-after")]).toEqual([503, "5"]);
  expect(await refused.json()).toMatchObject({ code: "STOPPING" });
  const ready = await fetch(`${url}/readyz`, { headers });
  expect(ready.status).toBe(503);
  expect(await ready.json()).toMatchObject({ detail: expect.stringMatching(/^This server is stopping\./) as string });
  expect(await (await fetch(`${url}/jobs/${id}`, { headers })).json()).toMatchObject({ status: "active" });

  await place.write("go", "");
  const { code, stderr } = await up.ended;
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  await expect(fetch(`${url}/livez`)).rejects.toThrow();
  expect(await place.json("job", id)).toMatchObject({ status: "completed" });
});
