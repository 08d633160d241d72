/** What the server of the http scenario is given, as `millrace up --app`: the task that is asked for over HTTP. */
import { defineApp, task } from "../../dist/index.js";

/** Workers run it too, and do not count it. */
export const posted = task({ name: "posted", queue: "bench", async run() {} });

export default defineApp({ tasks: [posted] });
