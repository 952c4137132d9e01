# A VPC in two zones. Public subnets hold NAT gateways and nothing else; every workload is private.

data "aws_availability_zones" "available" {
  # checkov:skip=CKV_AWS_394:Only the first two names are used, and a zone that AWS adds is named after them; pinning would tie the module to one region.
  state = "available"

  # Local zones offer neither NAT gateways nor SageMaker.
  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

locals {
  zones = slice(data.aws_availability_zones.available.names, 0, 2)

  # The same positions for ever: a subnet's range must not move when a kind is added.
  subnets = {
    for place in setproduct(["public", "workload", "lambda"], range(2)) : "${place[0]}-${place[1]}" => {
      kind  = place[0]
      index = tonumber(place[1])
      zone  = local.zones[tonumber(place[1])]
      cidr  = cidrsubnet(var.vpc_cidr, 4, 2 * index(["public", "workload", "lambda"], place[0]) + tonumber(place[1]))
    }
  }
  public = { for key, subnet in local.subnets : key => subnet if subnet.kind == "public" }
}

resource "aws_vpc" "this" {
  cidr_block           = var.vpc_cidr
  enable_dns_hostnames = true
  enable_dns_support   = true

  tags = { Name = var.name }
}

# Adopted and emptied: whatever forgets to name a security group gets no traffic at all.
resource "aws_default_security_group" "closed" {
  vpc_id = aws_vpc.this.id

  tags = { Name = "${var.name}-closed" }
}

resource "aws_subnet" "this" {
  for_each = local.subnets

  vpc_id                  = aws_vpc.this.id
  availability_zone       = each.value.zone
  cidr_block              = each.value.cidr
  map_public_ip_on_launch = false

  tags = { Name = "${var.name}-${each.key}" }
}

resource "aws_internet_gateway" "this" {
  vpc_id = aws_vpc.this.id

  tags = { Name = var.name }
}

resource "aws_eip" "nat" {
  for_each = local.public

  domain = "vpc"

  tags = { Name = "${var.name}-nat-${each.value.index}" }
}

resource "aws_nat_gateway" "this" {
  for_each = local.public

  allocation_id = aws_eip.nat[each.key].id
  subnet_id     = aws_subnet.this[each.key].id

  tags = { Name = "${var.name}-${each.value.index}" }

  depends_on = [aws_internet_gateway.this]
}

# One table a subnet. A public one leaves by the internet gateway, a private one by the NAT gateway of its own zone.
resource "aws_route_table" "this" {
  for_each = local.subnets

  vpc_id = aws_vpc.this.id

  route {
    cidr_block     = "0.0.0.0/0"
    gateway_id     = each.value.kind == "public" ? aws_internet_gateway.this.id : null
    nat_gateway_id = each.value.kind == "public" ? null : aws_nat_gateway.this["public-${each.value.index}"].id
  }

  tags = { Name = "${var.name}-${each.key}" }
}

resource "aws_route_table_association" "this" {
  for_each = local.subnets

  route_table_id = aws_route_table.this[each.key].id
  subnet_id      = aws_subnet.this[each.key].id
}
