-- Public projects in the orders in which they, and their repositories, are listed.
CREATE INDEX public_projects ON projects (name) WHERE public;
CREATE INDEX public_projects_walked ON projects (name || '/') WHERE public;
