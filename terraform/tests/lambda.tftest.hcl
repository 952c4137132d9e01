mock_provider "aws" {}

variables {
  account_id              = "123456789012"
  endpoint_name           = "classifier"
  kms_key_arn             = "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000"
  log_retention_days      = 365
  name                    = "classifier"
  package_path            = "tests/lambda.tftest.hcl" # any file: the mocked provider uploads nothing
  partition               = "aws"
  provisioned_concurrency = 2
  region                  = "us-east-1"
  reserved_concurrency    = 4
  role_arn                = "arn:aws:iam::123456789012:role/classifier-lambda"
  security_group_id       = "sg-1"
  subnet_ids              = ["subnet-1", "subnet-2"]
}

run "function_is_locked_down" {
  command = plan
  module { source = "./modules/lambda" }

  assert {
    condition     = aws_lambda_function.this.publish && aws_lambda_function.this.reserved_concurrent_executions == 4
    error_message = "No version is published, or the concurrency is not reserved."
  }
  assert {
    condition     = one(aws_lambda_function.this.tracing_config).mode == "Active" && aws_lambda_function.this.kms_key_arn == var.kms_key_arn
    error_message = "Tracing is off, or the environment is not encrypted with the stack's key."
  }
  assert {
    condition     = one(aws_lambda_function.this.vpc_config).subnet_ids == toset(["subnet-1", "subnet-2"])
    error_message = "The function is outside the VPC."
  }
  assert {
    condition = (
      one(aws_lambda_function.this.environment).variables["ENDPOINT_NAME"] == "classifier" &&
      jsondecode(one(aws_lambda_function.this.environment).variables["PRIVATE_HOSTS"]) == []
    )
    error_message = "The handler does not get its environment."
  }
  assert {
    condition     = aws_cloudwatch_log_group.this.name == "/aws/lambda/classifier" && aws_cloudwatch_log_group.this.retention_in_days == 365
    error_message = "The log group is not the one Lambda writes to, or keeps its lines for another time."
  }
}

run "callers_meet_a_warm_published_version" {
  command = plan
  module { source = "./modules/lambda" }

  assert {
    condition = (
      aws_lambda_alias.live.name == "live" && length(aws_lambda_alias.live.routing_config) == 0 &&
      one(aws_lambda_provisioned_concurrency_config.live).qualifier == "live" &&
      one(aws_lambda_provisioned_concurrency_config.live).provisioned_concurrent_executions == 2
    )
    error_message = "Provisioned concurrency needs an alias that names one version."
  }
}

run "a_new_account_reserves_nothing" {
  command = plan
  module { source = "./modules/lambda" }

  variables {
    provisioned_concurrency = 0
    reserved_concurrency    = null
  }

  assert {
    condition     = aws_lambda_function.this.reserved_concurrent_executions == -1 && length(aws_lambda_provisioned_concurrency_config.live) == 0
    error_message = "Something is reserved or provisioned where nothing was asked for."
  }
}

run "provisions_without_a_reservation" {
  command = plan
  module { source = "./modules/lambda" }

  variables {
    reserved_concurrency = null
  }

  assert {
    condition     = length(aws_lambda_provisioned_concurrency_config.live) == 1
    error_message = "Provisioned concurrency was dropped."
  }
}

run "refuses_provisioned_above_reserved" {
  command = plan
  module { source = "./modules/lambda" }

  variables {
    provisioned_concurrency = 5
  }
  expect_failures = [aws_lambda_provisioned_concurrency_config.live]
}

run "refuses_a_missing_package" {
  command = plan
  module { source = "./modules/lambda" }

  variables {
    package_path = "build/there-is-no-such.zip"
  }
  expect_failures = [aws_lambda_function.this]
}

run "refuses_an_unknown_retention" {
  command = plan
  module { source = "./modules/lambda" }

  variables {
    log_retention_days = 100
  }
  expect_failures = [var.log_retention_days]
}

run "hands_private_hosts_on" {
  command = plan
  module { source = "./modules/lambda" }

  variables {
    private_hosts = [
      { host = "pictures.internal", port = 443, cidr = "10.20.0.0/16" },
      { host = "10.20.1.7", port = 8443, cidr = "10.20.1.0/24" },
      { host = "six.internal", port = 443, cidr = "fd12:3456::/32" },
    ]
  }

  assert {
    condition     = jsondecode(one(aws_lambda_function.this.environment).variables["PRIVATE_HOSTS"])[1] == { host = "10.20.1.7", port = 8443, cidr = "10.20.1.0/24" }
    error_message = "The handler does not get the private hosts."
  }
}

run "refuses_a_loopback_block" {
  command = plan
  module { source = "./modules/lambda" }

  variables {
    private_hosts = [{ host = "pictures.internal", port = 443, cidr = "127.0.0.0/8" }]
  }
  expect_failures = [var.private_hosts]
}

run "refuses_a_loopback_address" {
  command = plan
  module { source = "./modules/lambda" }

  variables {
    private_hosts = [{ host = "pictures.internal", port = 443, cidr = "127.0.0.1/32" }]
  }
  expect_failures = [var.private_hosts]
}

run "refuses_a_block_that_holds_loopback" {
  command = plan
  module { source = "./modules/lambda" }

  variables {
    private_hosts = [{ host = "pictures.internal", port = 443, cidr = "0.0.0.0/0" }]
  }
  expect_failures = [var.private_hosts]
}

run "refuses_ipv6_loopback" {
  command = plan
  module { source = "./modules/lambda" }

  variables {
    private_hosts = [{ host = "pictures.internal", port = 443, cidr = "::1/128" }]
  }
  expect_failures = [var.private_hosts]
}

run "refuses_all_of_ipv6" {
  command = plan
  module { source = "./modules/lambda" }

  variables {
    private_hosts = [{ host = "pictures.internal", port = 443, cidr = "::/0" }]
  }
  expect_failures = [var.private_hosts]
}

run "refuses_mapped_loopback" {
  command = plan
  module { source = "./modules/lambda" }

  variables {
    private_hosts = [{ host = "pictures.internal", port = 443, cidr = "::ffff:127.0.0.1/128" }]
  }
  expect_failures = [var.private_hosts]
}

run "refuses_the_metadata_address" {
  command = plan
  module { source = "./modules/lambda" }

  variables {
    private_hosts = [{ host = "pictures.internal", port = 443, cidr = "169.254.169.254/32" }]
  }
  expect_failures = [var.private_hosts]
}

run "refuses_the_ipv6_metadata_address" {
  command = plan
  module { source = "./modules/lambda" }

  variables {
    private_hosts = [{ host = "pictures.internal", port = 443, cidr = "fd00:ec2::254/128" }]
  }
  expect_failures = [var.private_hosts]
}

run "refuses_a_block_that_holds_ipv6_metadata" {
  command = plan
  module { source = "./modules/lambda" }

  variables {
    private_hosts = [{ host = "pictures.internal", port = 443, cidr = "fd00::/8" }]
  }
  expect_failures = [var.private_hosts]
}

run "refuses_ipv6_link_local" {
  command = plan
  module { source = "./modules/lambda" }

  variables {
    private_hosts = [{ host = "pictures.internal", port = 443, cidr = "fe80::/64" }]
  }
  expect_failures = [var.private_hosts]
}

run "refuses_host_bits" {
  command = plan
  module { source = "./modules/lambda" }

  variables {
    private_hosts = [{ host = "pictures.internal", port = 443, cidr = "10.0.3.7/16" }]
  }
  expect_failures = [var.private_hosts]
}

run "refuses_no_cidr_block" {
  command = plan
  module { source = "./modules/lambda" }

  variables {
    private_hosts = [{ host = "pictures.internal", port = 443, cidr = "10.0.3.7" }]
  }
  expect_failures = [var.private_hosts]
}

run "refuses_localhost" {
  command = plan
  module { source = "./modules/lambda" }

  variables {
    private_hosts = [{ host = "localhost", port = 443, cidr = "10.0.0.0/16" }]
  }
  expect_failures = [var.private_hosts]
}

run "refuses_a_loopback_host" {
  command = plan
  module { source = "./modules/lambda" }

  variables {
    private_hosts = [{ host = "127.0.0.1", port = 443, cidr = "10.0.0.0/16" }]
  }
  expect_failures = [var.private_hosts]
}

run "refuses_a_url_as_host" {
  command = plan
  module { source = "./modules/lambda" }

  variables {
    private_hosts = [{ host = "https://pictures.internal", port = 443, cidr = "10.0.0.0/16" }]
  }
  expect_failures = [var.private_hosts]
}

run "refuses_port_zero" {
  command = plan
  module { source = "./modules/lambda" }

  variables {
    private_hosts = [{ host = "pictures.internal", port = 0, cidr = "10.0.0.0/16" }]
  }
  expect_failures = [var.private_hosts]
}

run "refuses_a_port_above_65535" {
  command = plan
  module { source = "./modules/lambda" }

  variables {
    private_hosts = [{ host = "pictures.internal", port = 65536, cidr = "10.0.0.0/16" }]
  }
  expect_failures = [var.private_hosts]
}
