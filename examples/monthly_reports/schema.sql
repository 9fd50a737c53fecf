create table if not exists tenants (id integer primary key, name text not null);
create table if not exists sales (
  tenant integer not null references tenants,
  sold_on date not null,
  product text not null,
  cents bigint not null
);
create index if not exists sales_by_tenant on sales (tenant, sold_on);
-- A row is written after its file is complete, so there is no row without a file.
create table if not exists reports (
  month date not null,
  tenant integer not null references tenants,
  path text not null,
  sales integer not null,
  cents bigint not null,
  begun_at timestamptz not null,
  rendered_at timestamptz not null,
  primary key (month, tenant)
);
