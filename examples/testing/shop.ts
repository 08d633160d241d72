// shop.ts: an app whose tasks are worth testing.
import { type Millrace, RateLimitError, defineApp, task } from "millrace";
import { z } from "zod";

/** Where the modules of this process find its Millrace: the program puts it here, and so does every test. */
export const shop = {} as { mill: Millrace };

export const sendMail = task({
  name: "send-mail",
  input: z.object({ to: z.email(), template: z.enum(["welcome", "reminder"]) }),
  run: ({ input, log }) => {
    if (!input.to.startsWith("full")) return { sent: true };
    log.warn({ to: input.to }, "mailbox full");
    throw new RateLimitError("mailbox full", { retryAfterMs: 90_000 });
  },
});

export const signUp = task({
  name: "sign-up",
  input: z.object({ email: z.email() }),
  run: async ({ input }) => {
    const { mill } = shop;
    await mill.enqueue(sendMail, { to: input.email, template: "welcome" });
    await mill.enqueue(sendMail, { to: input.email, template: "reminder" }, { delay: "1d" });
  },
});

export const charge = task({
  name: "charge",
  input: z.object({ order: z.string() }),
  run: ({ input, complete }) =>
    shop.mill.transaction(async (tx) => {
      await tx.query("insert into charges values ($1)", [input.order]);
      await complete(tx);
    }),
});

export const app = defineApp({ tasks: [sendMail, signUp, charge] });
