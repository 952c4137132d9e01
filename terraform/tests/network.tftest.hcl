mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  artifact_bucket_arn = "arn:aws:s3:::pictures-123456789012-us-east-1-artifacts"
  flow_log_role_arn   = "arn:aws:iam::123456789012:role/pictures-flow-logs"
  kms_key_arn         = "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000"
  name                = "pictures"
  region              = "us-east-1"
  vpc_cidr            = "10.20.0.0/16"
}

run "two_zones_private_but_for_nat" {
  # Ids are compared, so they must exist.
  command = apply

  module {
    source = "./modules/network"
  }

  assert {
    condition     = length(output.workload_subnet_ids) == 2 && length(output.lambda_subnet_ids) == 2 && length(setintersection(output.workload_subnet_ids, output.lambda_subnet_ids)) == 0
    error_message = "Two subnets of each kind, none of both."
  }

  assert {
    condition = alltrue([
      for kind in ["public", "workload", "lambda"] :
      toset([for index in ["0", "1"] : aws_subnet.this["${kind}-${index}"].availability_zone]) == toset(["us-east-1a", "us-east-1b"])
    ])
    error_message = "Each kind spans two zones."
  }

  assert {
    condition     = length(distinct([for subnet in aws_subnet.this : subnet.cidr_block])) == 6 && alltrue([for subnet in aws_subnet.this : !subnet.map_public_ip_on_launch])
    error_message = "Six ranges, and no address from the internet in any of them."
  }

  assert {
    condition = alltrue([
      for key, table in aws_route_table.this : length(table.route) == 1 && alltrue([
        for route in table.route : route.cidr_block == "0.0.0.0/0" && (
          startswith(key, "public-")
          ? route.gateway_id == aws_internet_gateway.this.id && route.nat_gateway_id == null
          : route.gateway_id == null && route.nat_gateway_id == aws_nat_gateway.this["public-${local.subnets[key].index}"].id
        )
      ])
    ])
    error_message = "Only the NAT gateways' subnets reach the internet gateway; each private one leaves by the NAT gateway of its zone."
  }

  assert {
    condition     = toset(aws_vpc_endpoint.s3.route_table_ids) == toset([aws_route_table.this["workload-0"].id, aws_route_table.this["workload-1"].id])
    error_message = "The S3 gateway stands in the workload subnets' tables, never in the Lambda's."
  }

  assert {
    condition     = length(aws_default_security_group.closed.ingress) == 0 && length(aws_default_security_group.closed.egress) == 0
    error_message = "The default security group lets nothing through."
  }

  assert {
    condition = (
      aws_flow_log.this.traffic_type == "ALL" && aws_flow_log.this.iam_role_arn == var.flow_log_role_arn
      && aws_cloudwatch_log_group.flow_logs.name == "/pictures/flow-logs" && aws_cloudwatch_log_group.flow_logs.kms_key_id == var.kms_key_arn
    )
    error_message = "All traffic is logged, encrypted, to the group that the role may write."
  }
}

run "the_s3_gateway_admits_known_buckets_only" {
  command = plan

  module {
    source = "./modules/network"
  }

  assert {
    condition = toset(flatten([for statement in jsondecode(aws_vpc_endpoint.s3.policy).Statement : statement.Resource])) == toset([
      "arn:aws:s3:::pictures-123456789012-us-east-1-artifacts",
      "arn:aws:s3:::pictures-123456789012-us-east-1-artifacts/*",
      "arn:aws:s3:::prod-us-east-1-starport-layer-bucket/*",
    ])
    error_message = "The artifact bucket and image layers, no other."
  }

  assert {
    condition = alltrue([
      for statement in jsondecode(aws_vpc_endpoint.s3.policy).Statement : statement.Action == "s3:GetObject" if statement.Sid != "ArtifactBucket"
    ])
    error_message = "Buckets of others are read, never written."
  }
}

run "interface_endpoints_are_one_switch" {
  command = plan

  module {
    source = "./modules/network"
  }

  assert {
    condition = toset([for endpoint in aws_vpc_endpoint.interface : endpoint.service_name]) == toset([
      for service in ["autoscaling", "ecr.api", "ecr.dkr", "kms", "logs", "sagemaker.api", "sagemaker.runtime", "ssm", "sts"] : "com.amazonaws.us-east-1.${service}"
    ])
    error_message = "The APIs that the workloads call."
  }

  assert {
    condition     = alltrue([for endpoint in aws_vpc_endpoint.interface : endpoint.private_dns_enabled])
    error_message = "Without private DNS no client finds the endpoints."
  }

  assert {
    condition     = aws_vpc_security_group_ingress_rule.interface_endpoints[0].cidr_ipv4 == var.vpc_cidr && aws_vpc_security_group_ingress_rule.interface_endpoints[0].from_port == 443 && aws_vpc_security_group_ingress_rule.interface_endpoints[0].to_port == 443
    error_message = "HTTPS from inside the VPC, nothing else."
  }
}

run "nat_serves_without_interface_endpoints" {
  command = plan

  module {
    source = "./modules/network"
  }

  variables {
    interface_endpoints = false
  }

  assert {
    condition     = length(aws_vpc_endpoint.interface) == 0 && length(aws_security_group.interface_endpoints) == 0
    error_message = "The switch takes all of them away."
  }
}

run "refuses_a_range_too_small" {
  command = plan

  module {
    source = "./modules/network"
  }

  variables {
    vpc_cidr = "10.20.0.0/28"
  }

  expect_failures = [var.vpc_cidr]
}
