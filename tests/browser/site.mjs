// Other people's web sites: small servers in this process, by a name that only the browser knows.

import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';

let certificate;

function selfSigned() {
    certificate ??= (() => {
        const [key, cert] = ['/tmp/site-key.pem', '/tmp/site-cert.pem'];
        const subject = ['-subj', '/CN=site', '-days', '2', '-nodes', '-newkey', 'rsa:2048'];
        execFileSync('openssl', ['req', '-x509', ...subject, '-keyout', key, '-out', cert], { stdio: 'pipe' });
        return { key: readFileSync(key), cert: readFileSync(cert) };
    })();
    return certificate;
}

/** Serves these bodies, by path, under `https://NAME:PORT`; `asked` has the headers of what came; `close` ends it. */
export async function site(name, pages, headers = {}) {
    const asked = [];
    const server = createServer(selfSigned(), (request, response) => {
        asked.push(request.headers);
        const body = pages[new URL(request.url, 'https://x').pathname];
        const type = { mjs: 'text/javascript', css: 'text/css' }[request.url.split('.').pop()] ?? 'text/html';
        response.writeHead(body === undefined ? 404 : 200, { 'content-type': type, ...headers });
        response.end(body ?? '');
    });
    await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
    // A test that failed keeps nothing alive.
    server.unref();
    return {
        pages,
        asked,
        origin: `https://${name}:${server.address().port}`,
        close: () => new Promise((closed) => { server.close(closed); server.closeAllConnections(); }),
    };
}
