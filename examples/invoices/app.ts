/** An application with tasks worth testing: an invoice is sent, reminded of after two weeks, and closed when it is paid. */
import { defineApp, task } from "millrace";
import { z } from "zod";

/** Stands for the mail server. */
export const outbox: { readonly to: string; readonly subject: string }[] = [];

export const sendMail = task({
  name: "send-mail",
  queue: "mail",
  input: z.object({ to: z.email(), subject: z.string() }),
  backoff: { delay: "1m" },
  run({ input, attempt }) {
    if (input.to.startsWith("busy@") && attempt === 1) throw new Error("mailbox busy");
    outbox.push(input);
  },
});

export const invoice = task({
  name: "invoice",
  input: z.object({ number: z.int(), to: z.email() }),
  async run({ input, step }) {
    const { number, to } = input;
    await step.run("send", () => void outbox.push({ to, subject: `Invoice ${number}` }));
    for (let reminder = 1; reminder <= 2; reminder += 1) {
      const paid = await step.waitForEvent(`payment ${reminder}`, { event: `invoice.${number}.paid`, timeout: "14d" });
      if (paid !== undefined) return "paid";
      await step.run(`remind ${reminder}`, () => void outbox.push({ to, subject: `Reminder ${reminder}: ${number}` }));
    }
    return "collection";
  },
});

export default defineApp({ tasks: [sendMail, invoice] });
