/** Tasks to try commands on: one that works, one that takes a moment, one that fails, one with a schema, one on a queue of its own. */
import { setTimeout as pause } from "node:timers/promises";
import { NonRetryableError, task } from "millrace";
import { z } from "zod";

export const ok = task({ name: "ok", timeout: "5s", run() {} });

export const demoOk = task({
  name: "demo_ok",
  run: ({ signal }) => pause(300, undefined, { signal }),
});

/** Does nothing until its time is up, every time: retries, then a dead letter with code `TIMEOUT`. */
export const failMe = task({
  name: "fail_me",
  timeout: "100ms",
  run: ({ signal }) => pause(60_000, undefined, { signal }),
});

/** Sends nothing: it says what it would send. */
export const emailSend = task({
  name: "email_send",
  timeout: "10s",
  input: z.object({ user_id: z.int(), template: z.string().default("welcome") }),
  run: ({ input, log }) => log.info(input, `would send "${input.template}" to user ${input.user_id}`),
});

const scenes: Readonly<Record<string, string>> = {
  "1": "INT. MILL - NIGHT. The wheel stands still. ADA: It has stopped. TOM: It is only waiting.",
  "2": "EXT. RIVER - DAWN. Water rises behind the gate. ADA: Now.",
};

/** Where a language model would be asked, this counts words; everything around it is as it would be. */
export const analyseScene = task({
  name: "analyse-scene",
  queue: "ai-analysis",
  maxAttempts: 3,
  timeout: "30s",
  input: z.object({ entityId: z.string(), analysisType: z.enum(["full", "quick", "detailed"]).default("quick") }),
  async run({ input, log, signal }) {
    const scene = scenes[input.entityId];
    if (scene === undefined)
      throw new NonRetryableError(`There is no scene ${input.entityId}.`, { code: "SCENE_NOT_FOUND" });
    await pause(250, undefined, { signal });
    const speakers = [...new Set(scene.match(/[A-Z]+(?=:)/g))];
    log.info({ speakers, words: scene.split(/\s+/).length }, `scene ${input.entityId} analysed`);
  },
});
