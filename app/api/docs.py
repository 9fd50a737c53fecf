"""`/docs`: an overview of the operations, from `/openapi.json`, without loading anything from elsewhere."""

from starlette.responses import Response

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Sluice: the API</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
  h2 { margin: 2rem 0 .5rem; text-transform: capitalize }
  details { border-top: 1px solid #ddd; padding: .4rem 0 }
  summary { cursor: pointer }
  code, pre { font: 13px/1.5 ui-monospace, monospace }
  pre { background: #f5f5f5; padding: .6rem; overflow: auto }
  b { display: inline-block; width: 4rem }
  small { color: #666; margin-left: 1rem }
</style>
<h1>Sluice</h1>
<p>The whole contract is in <a href="openapi.json">openapi.json</a>.</p>
<main id="operations">Loading …</main>
<noscript>The list needs JavaScript; <a href="openapi.json">openapi.json</a> does not.</noscript>
<script>
const make = (name, text) => Object.assign(document.createElement(name), { textContent: text ?? "" });
const resolve = (api, schema, depth = 0) => {
  if (!schema || depth > 6) return schema;
  if (schema.$ref) return resolve(api, api.components.schemas[schema.$ref.split("/").pop()], depth + 1);
  if (Array.isArray(schema)) return schema.map(part => resolve(api, part, depth + 1));
  if (typeof schema !== "object") return schema;
  return Object.fromEntries(Object.entries(schema).map(([key, part]) => [key, resolve(api, part, depth + 1)]));
};
fetch("openapi.json").then(reply => reply.json()).then(api => {
  const byTag = {};
  for (const [path, methods] of Object.entries(api.paths))
    for (const [method, operation] of Object.entries(methods))
      (byTag[operation.tags?.[0] ?? "other"] ??= []).push([method.toUpperCase(), path, operation]);
  const main = document.getElementById("operations");
  main.replaceChildren();
  for (const [tag, operations] of Object.entries(byTag)) {
    main.append(make("h2", tag));
    for (const [method, path, operation] of operations) {
      const details = make("details"), summary = make("summary");
      summary.append(make("b", method), make("code", path), make("small", operation.description ?? ""));
      details.append(summary);
      for (const parameter of operation.parameters ?? [])
        details.append(make("p", `${parameter.in} ${parameter.name}: ${parameter.description ?? ""}`));
      const body = operation.requestBody?.content["application/json"]?.schema;
      if (body) details.append(make("p", "Body"), make("pre", JSON.stringify(resolve(api, body), null, 2)));
      for (const [status, response] of Object.entries(operation.responses))
        details.append(make("p", `${status}: ${response.description}`));
      main.append(details);
    }
  }
});
</script>
</html>
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"


def docs_page() -> Response:
    return Response(PAGE, headers={"content-security-policy": POLICY}, media_type="text/html; charset=utf-8")
