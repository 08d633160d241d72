/** `millrace emit <event> [payload]`: wakes the runs that wait for an event. */
import type { EmittedEvent } from "../client/index.ts";
import { doorArguments, openApi } from "./api-door.ts";
import { readJson, signature, signatureArguments } from "./arguments.ts";
import { command } from "./command.ts";
import { counted, print, printJson } from "./print.ts";

export const emit = command({
  meta: { name: "emit", description: "Emit an event that runs wait for in a step, now or later" },
  args: {
    event: { type: "positional", required: true, description: "Its name, such as order.42.paid" },
    payload: { type: "positional", required: false, description: "What the run gets, as JSON; default null" },
    by: signatureArguments.by,
    ...doorArguments,
  },
  async run({ args }) {
    const payload = args.payload === undefined ? null : readJson(args.payload, "The payload");
    const door = await openApi(args);
    try {
      const body = { event: args.event, payload, ...signature({ by: args.by }) };
      const emitted = await door.ask<EmittedEvent>("POST", "/events", body);
      if (args.json) return printJson(emitted);
      print(
        emitted.duplicate
          ? `Event ${args.event} came before, and that one counts: nothing was changed.`
          : `Event ${args.event} is there: ${counted(emitted.woken, "run")} woken.`,
      );
    } finally {
      await door.close();
    }
  },
});
