// The portal's API, with the token that the person gave.

const KEY = "mpq-token";

export class Refused extends Error {
  constructor(status, detail, extra = null) {
    super(detail);
    this.status = status;
    this.extra = extra;
  }
}

export const token = () => sessionStorage.getItem(KEY);
export const setToken = (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY));

export async function ask(path, method = "GET", body = undefined) {
  const headers = { Authorization: `Bearer ${token()}` };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const response = await fetch(`/api/v1/${path}`, { method, headers, body: JSON.stringify(body) });
  const text = await response.text();
  const answer = text ? JSON.parse(text) : null;
  if (!response.ok) throw new Refused(response.status, answer?.detail ?? response.statusText, answer?.extra);
  return answer;
}

/** Calls `heard(name, data)` for every event of the stream until it ends or `signal` aborts; EventSource has no headers. */
export async function listen(heard, signal) {
  const response = await fetch("/api/v1/stream", { headers: { Authorization: `Bearer ${token()}` }, signal });
  if (!response.ok) throw new Refused(response.status, response.statusText);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const field = (name) => part.split("\n").find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
      if (field("data")) heard(field("event"), JSON.parse(field("data")));
    }
  }
}
