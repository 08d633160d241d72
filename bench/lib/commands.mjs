/** The child's end of rpc.mjs: calls of its commands are answered, what it is told besides is handed on. */
export function offer(commands, onTold = () => {}) {
  async function answer({ id, command, args }) {
    try {
      process.send({ id, value: await commands[command](...args) });
    } catch (error) {
      process.send({ id, error: error.stack ?? String(error) });
    }
  }
  process.on("message", (message) => (message.command ? void answer(message) : onTold(message)));
  process.on("disconnect", () => process.exit(0));
  process.on("unhandledRejection", (error) => process.send({ event: "error", error: error?.stack ?? String(error) }));
  process.send({ event: "ready" });
}
