if (!process.env["LICENCE_OF_NOBODY"])
  throw Object.assign(new Error("the licence file is missing"), { code: "NO_LICENCE" });

export default (): void => undefined;
