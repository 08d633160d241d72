/** The routes of workers: who runs what, and the orders an operator gives to one of them or to all. */
import { Hono } from "hono";
import { z } from "zod";
import type { Millrace } from "../app/millrace.ts";
import { MillraceError } from "../core/errors.ts";
import type { ApiContext, ApiEnv } from "./env.ts";
import { given, readBody, readOptionalBody } from "./read.ts";
import { workersView } from "./worker-view.ts";

const by = z
  .string()
  .regex(/^[^\0]*$/, "expected a text without NUL characters")
  .max(200)
  .nullish();
const orderBody = z.strictObject({ by });
const concurrencyBody = z.strictObject({ concurrency: z.number(), by });

const maxBodyBytes = 65_536;

export function workerRoutes(mill: Millrace): Hono<ApiEnv> {
  const { registry } = mill;
  const orderer = async (c: ApiContext) => given(await readOptionalBody(c, orderBody, maxBodyBytes));

  return new Hono<ApiEnv>()
    .get("/api/workers", async (c) => c.json(workersView(await mill.workers(), await mill.drained())))
    .post("/api/workers/:id/drain", async (c) => {
      const id = readWorkerId(c);
      const changed = await registry.drain(id, await orderer(c));
      const message = `Worker ${id} ${changed ? "claims nothing more" : "drained already"}.`;
      return c.json({ success: true, message, id, changed });
    })
    .post("/api/workers/:id/resume", async (c) => {
      const id = readWorkerId(c);
      const changed = await registry.resume(id, await orderer(c));
      const message = `Worker ${id} ${changed ? "claims again" : "did not drain"}.`;
      return c.json({ success: true, message, id, changed });
    })
    .post("/api/workers/:id/recycle", async (c) => {
      const id = readWorkerId(c);
      await registry.recycle(id, await orderer(c));
      return c.json({ success: true, message: `Worker ${id} ends what runs, then stops and starts anew.`, id });
    })
    .patch("/api/workers/:id", async (c) => {
      const id = readWorkerId(c);
      const { concurrency, ...rest } = await readBody(c, concurrencyBody, maxBodyBytes);
      await registry.setConcurrency(id, concurrency, given(rest));
      return c.json({ success: true, message: `Worker ${id} runs ${concurrency} jobs at once.`, id, concurrency });
    })
    .post("/api/drain", async (c) => {
      const changed = await mill.drain(await orderer(c));
      const message = "No worker claims anything more, nor will one that starts, until /api/drain/resume.";
      return c.json({ success: true, message, changed, drained: await mill.drained() });
    })
    .post("/api/drain/resume", async (c) => {
      const changed = await mill.undrain(await orderer(c));
      return c.json({ success: true, message: "Every worker claims again.", changed, drained: null });
    });
}

function readWorkerId(c: ApiContext): number {
  const text = c.req.param("id") ?? "";
  if (/^\d{1,9}$/.test(text)) return Number(text);
  const message = `${JSON.stringify(text.slice(0, 80))} is not the id of a worker: ids are numbers.`;
  throw new MillraceError("BAD_REQUEST", message);
}
