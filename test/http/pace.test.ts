import { once } from "node:events";
import { Agent, type IncomingMessage, get } from "node:http";
import { text } from "node:stream/consumers";
import { setImmediate as round } from "node:timers/promises";
import { Hono } from "hono";
import { expect, test } from "vitest";
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

test("a probe is answered while a crowd that came before it is waiting", async () => {
  const crowd = 60;
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
  await Promise.all(Array.from({ length: crowd + 1 }, () => ask("/livez"))); // everybody is connected
  ended.length = 0;

  const busy = Array.from({ length: crowd }, () => ask("/busy"));
  await Promise.all([...busy, ask("/livez")]);

  expect(ended.indexOf("/livez")).toBeLessThan(crowd / 2);
  agent.destroy();
  await serving.close(1_000);
});

test("the paths that are let past are paths of the API", async () => {
  await using mill = await file.open();
  const { paths } = (await callerOf(createApi(mill, { log: recorder() }))("/openapi.json")).body as {
    paths: Record<string, unknown>;
  };
  expect(Object.keys(paths).filter(isProbe).toSorted()).toEqual(["/api/health", "/health", "/livez", "/readyz"]);
});
