import { once } from "node:events";
import { Agent, type IncomingMessage, get } from "node:http";
import { text } from "node:stream/consumers";
import { setImmediate as round } from "node:timers/promises";
import { Hono } from "hono";
import { describe, expect, test } from "vitest";
import { isProbe } from "../../src/http/endpoint.ts";
import type { ApiEnv } from "../../src/http/env.ts";
import { pace } from "../../src/http/pace.ts";
import { serve } from "../../src/http/server.ts";
import { useDatabase } from "../support/engine.ts";
import { callerOf, createApi, recorder } from "./caller.ts";

const file = useDatabase();

test("sixteen in one round of the event loop, the others in the next ones, in the order in which they came", async () => {
  const done: string[] = [];
  for (let n = 0; n < 36; n++) {
    if (n % 2 === 0) pace.run(() => done.push(`${n}`));
    else void Promise.resolve(pace.turn()).then(() => done.push(`${n}`));
  }
  await Promise.resolve();
  const rounds = [[...done]];
  while (done.length < 36) {
    await round();
    rounds.push(done.slice(rounds.flat().length));
  }
  const firsts = Array.from({ length: 36 }, (_, n) => `${n}`);
  expect(new Set(rounds.flat())).toEqual(new Set(firsts));
  expect(new Set(rounds[0])).toEqual(new Set(firsts.slice(0, 16)));
  expect(rounds.every((one) => one.length <= 16)).toBe(true);
});

test("one that comes when nothing is due is not kept", async () => {
  await round();
  await round();
  expect(pace.turn()).toBeUndefined();
});

test("while connections come in, nothing is begun, for so many rounds and while so few wait", async () => {
  const done: number[] = [];
  const begun = async (rounds: number, { connections }: { connections: boolean }): Promise<number> => {
    const before = done.length;
    for (let n = 0; n < rounds; n++) {
      if (connections) pace.connected();
      await round();
    }
    return done.length - before;
  };
  pace.connected();
  await round();
  pace.run(() => done.push(0));
  expect(await begun(60, { connections: true })).toBe(0);
  expect(await begun(2, { connections: false })).toBe(1);

  pace.connected();
  await round();
  pace.run(() => done.push(0));
  expect(await begun(70, { connections: true })).toBe(1); // who only connects keeps nobody waiting for ever

  pace.connected();
  await round();
  for (let n = 0; n < 100; n++) pace.run(() => done.push(n));
  expect(await begun(4, { connections: true })).toBeGreaterThan(30);
  await begun(10, { connections: false });
  expect(done).toHaveLength(102);
});

describe("a probe is answered before a crowd is", () => {
  const crowd = 60;
  const cases = [
    ["that is connected and has asked before", true],
    ["that connects before", false],
  ] as const;
  test.each(cases)("%s", async (_, connected) => {
    const ended: string[] = [];
    const api = new Hono<ApiEnv>()
      .get("/busy", (c) => {
        const until = performance.now() + 5;
        while (performance.now() < until);
        return c.text("done");
      })
      .get("/livez", (c) => c.text("ok"));
    const serving = await serve(api, { host: "127.0.0.1", ports: [0], log: recorder() });
    const agent = new Agent({ keepAlive: true, maxSockets: crowd + 1 });
    const ask = async (path: string): Promise<void> => {
      const [response] = (await once(get(`${serving.urls[0]}${path}`, { agent }), "response")) as [IncomingMessage];
      await text(response);
      ended.push(path);
    };
    if (connected) await Promise.all(Array.from({ length: crowd + 1 }, () => ask("/livez")));
    ended.length = 0;

    const busy = Array.from({ length: crowd }, () => ask("/busy"));
    await Promise.all([...busy, ask("/livez")]);

    expect(ended.indexOf("/livez")).toBeLessThan(crowd / 2);
    agent.destroy();
    await serving.close(1_000);
  });
});

test("the paths that are let past are paths of the API", async () => {
  await using mill = await file.open();
  const { paths } = (await callerOf(createApi(mill, { log: recorder() }))("/openapi.json")).body as {
    paths: Record<string, unknown>;
  };
  expect(Object.keys(paths).filter(isProbe).toSorted()).toEqual(["/api/health", "/health", "/livez", "/readyz"]);
});
