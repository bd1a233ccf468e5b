// Notes over PostgreSQL: POST / keeps the body, GET / lists what was kept.
'use strict';
const http = require('http');
const { Pool } = require('pg');

const pool = new Pool({
  host: process.env.STORE_HOST || 'postgres', user: 'app', password: process.env.PASSWORD, database: 'app',
});

async function body(request) {
  let text = '';
  for await (const part of request) {
    text += part;
    if (text.length > 65536) throw new Error('a note has 64 KiB at most');
  }
  return text;
}

async function answer(request) {
  if (request.method === 'POST') {
    await pool.query('INSERT INTO notes (text) VALUES ($1)', [await body(request)]);
    return 'kept\n';
  }
  const { rows } = await pool.query('SELECT text FROM notes ORDER BY id');
  return rows.map((row) => row.text + '\n').join('');
}

const server = http.createServer((request, response) => {
  answer(request).then(
    (text) => response.end(text),
    (e) => { response.statusCode = 500; response.end(e.message + '\n'); },
  );
});
pool.query('CREATE TABLE IF NOT EXISTS notes (id serial PRIMARY KEY, text text NOT NULL)').then(() => {
  server.listen(8000, () => console.log('listening'));
}, (e) => { console.error(e.message); process.exit(1); });
process.on('SIGTERM', () => server.close(() => pool.end().then(() => process.exit(0))));
