/** `millrace events`: what happens, a line each, until Ctrl-C. */
import { setTimeout as pause } from "node:timers/promises";
import { silent } from "../core/log.ts";
import { doorArguments, openApi } from "./api-door.ts";
import { answerOf, withQuery } from "./ask-api.ts";
import { command } from "./command.ts";
import { oneLine, paint, print, printJson } from "./print.ts";
import { stopAsked } from "./stop-asked.ts";

const retryPauseMaxMs = 5_000;
/** Longest line: an error message may be long. */
const longest = 500;

export const events = command({
  meta: { name: "events", description: "Show what happens to jobs, queues, workers and schedules, as it happens" },
  args: {
    queue: { type: "string", description: "Only what happens in this queue" },
    type: { type: "string", valueHint: "a,b.*", description: "Only events of these types, or groups of them" },
    job: { type: "string", valueHint: "id", description: "Only what happens to this job" },
    after: { type: "string", valueHint: "place", description: "Go on from the place of an event shown with --json" },
    ...doorArguments,
  },
  async run({ args }) {
    const { queue, type, job, after } = args;
    const path = withQuery("/events", { queue, type, job });
    const door = await openApi(args);
    const stop = new AbortController();
    void stopAsked(silent).then(() => stop.abort());
    process.stdout.once("error", () => stop.abort()); // `millrace events | head`
    try {
      let place = after;
      for (let failures = 0; !stop.signal.aborted;) {
        try {
          const response = await door.follow(path, place, stop.signal);
          if (!response.ok) await answerOf(response, args.url ?? "The API");
          for await (const told of read(response, stop.signal)) {
            place = told.place ?? place;
            failures = 0;
            if (told.event === undefined || told.event.type === "stream.ended") continue;
            if (args.json) printJson({ ...told.event, place });
            else print(lineOf(told.event));
          }
        } catch (error) {
          // What was never reached, or says no, will not get better; what was lost, may.
          if (stop.signal.aborted) break;
          if (place === undefined || place === after) throw error;
        }
        failures += 1;
        const pauseMs = Math.min(250 * 2 ** failures, retryPauseMaxMs);
        if (failures > 1) process.stderr.write(`millrace: no events come; trying again in ${pauseMs} ms\n`);
        await pause(pauseMs, undefined, { signal: stop.signal }).catch(() => undefined);
      }
    } finally {
      await door.close();
    }
  },
});

interface TheirEvent {
  readonly type: string;
  readonly id: string;
  readonly at: string;
}

/** The blocks of an event stream as they come: events, and places that were reached without one. */
async function* read(
  response: Response,
  signal: AbortSignal,
): AsyncGenerator<{ event: TheirEvent | undefined; place: string | undefined }> {
  const decoder = new TextDecoder();
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  const cancel = (): void => void reader.cancel().catch(() => undefined);
  signal.addEventListener("abort", cancel, { once: true });
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (text + decoder.decode(value, { stream: true })).split("\n\n");
    text = blocks.pop() ?? "";
    for (const block of blocks) {
      const place = /^id: (.*)$/m.exec(block)?.[1];
      const data = /^data: (.*)$/m.exec(block)?.[1];
      yield { place, event: data === undefined ? undefined : (JSON.parse(data) as TheirEvent) };
    }
  }
}

function lineOf({ type, at, ...fields }: TheirEvent): string {
  const told = Object.entries(fields)
    .filter(([name, value]) => name !== "id" && value !== null)
    .map(([name, value]) => `${name}=${typeof value === "string" ? value : JSON.stringify(value)}`);
  return `${paint("dim", at)}  ${paint("bold", type.padEnd(16))}  ${oneLine(told.join(" "), longest)}`;
}
