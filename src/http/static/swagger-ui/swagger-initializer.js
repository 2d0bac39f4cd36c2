// A file and not a script in the page, so that the page runs under `script-src 'self'`.
{
  // Relative to the page: right under every root_path and behind every proxy.
  const { openapiUrl = "openapi.json" } = document.currentScript.dataset;
  SwaggerUIBundle({
    url: openapiUrl,
    dom_id: "#swagger-ui",
    deepLinking: true,
    // Tokens live as long as the page does.
    persistAuthorization: false,
    // Nobody outside is asked whether the document is valid.
    validatorUrl: null,
  });
}
